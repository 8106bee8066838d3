import os
import signal

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from deeplab_lit.training.checkpoints import BestAndLast
from deeplab_lit.training.interrupt import SaveOnSignal
from deeplab_lit.training.reproducible import StepSeed

SIGNALS = [signal.SIGINT, signal.SIGTERM]
STEPS, ACCUMULATE, PER_EPOCH = 6, 2, 2  # optimizer steps; batches a step; steps an epoch


class Send(Callback):
    """Sends this process a signal at a chosen moment."""

    def __init__(self, hook, number=signal.SIGINT, *, at=0, times=1):
        self.number, self.times, self.calls, self.seen = number, times, -1, []
        setattr(self, hook, self._hook)
        self.at = at

    def _hook(self, trainer, *args):
        self.calls += 1
        if self.calls == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, *args):
        self.seen.append(trainer.global_step)


@pytest.fixture(autouse=True)
def _keep_handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def fit(make_module, make_data, make_trainer, tmp_path):
    """Trains for three epochs of two steps of two batches, validating after every step."""

    def run(*callbacks, ckpt_path=None, **kwargs):
        options = {"max_steps": STEPS, "accumulate_grad_batches": ACCUMULATE, "max_epochs": -1}
        options |= {"val_check_interval": ACCUMULATE, "check_val_every_n_epoch": None}
        best = BestAndLast(tmp_path, "best", monitor="val/miou", mode="max")
        options |= {"callbacks": [StepSeed(), SaveOnSignal(), *callbacks, best]}
        options |= {"enable_checkpointing": True}
        trainer = make_trainer(**{**options, **kwargs})
        module = make_module(lr=0.1)
        module.net.head = nn.Sequential(nn.Dropout(0.3), module.net.head)
        module.net.head.new_layers = module.net.head[1].new_layers
        data = make_data(train_size=PER_EPOCH * ACCUMULATE * 2 + 1, val_size=2)
        trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
        return trainer, module

    return run


def load(path):
    return torch.load(path, weights_only=True)


def largest_difference(a, b):
    return max((x.double() - y.double()).abs().max().item() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_leaves_with_its_code_and_a_checkpoint_between_two_steps(number, fit, tmp_path):
    send = Send("on_before_backward", number, at=4)  # the first half of the third step
    with pytest.raises(SystemExit) as exit:
        fit(send)
    assert exit.value.code == 128 + number
    checkpoint = load(tmp_path / "last.ckpt")
    assert checkpoint["global_step"] == 3
    assert send.seen == [0, 0, 1, 1, 2, 2]


class Look(Callback):
    """Who listens to the signals during training."""

    def on_train_batch_start(self, trainer, *args):
        self.handlers = [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("interrupted", [False, True])
def test_handlers_are_put_back(interrupted, fit):
    before = [signal.getsignal(number) for number in SIGNALS]
    look = Look()
    if interrupted:
        with pytest.raises(SystemExit):
            fit(look, Send("on_before_backward"))
    else:
        fit(look, max_steps=1)
    assert all(x != y for x, y in zip(look.handlers, before, strict=True))
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_ctrl_c_quits_without_saving(fit, tmp_path):
    with pytest.raises((KeyboardInterrupt, SystemExit)) as exit:
        fit(Send("on_before_backward", times=2))
    assert getattr(exit.value, "code", 1) == 1
    assert not (tmp_path / "last.ckpt").exists()


def test_a_validation_is_finished_before_leaving(fit, tmp_path):
    send = Send("on_validation_batch_start", at=2)  # the first image of the second validation
    with pytest.raises(SystemExit):
        fit(send)
    assert send.calls == 3
    last = load(tmp_path / "last.ckpt")
    assert last["global_step"] == 2
    state = next(v for k, v in last["callbacks"].items() if "BestAndLast" in k)
    assert state["current_score"] is not None


@pytest.mark.parametrize(
    ("hook", "at"),
    [
        pytest.param("on_before_backward", 2, id="first_half_of_a_step"),
        pytest.param("on_before_backward", 3, id="last_batch_of_an_epoch"),
        pytest.param("on_before_backward", 4, id="first_batch_of_an_epoch"),
        pytest.param("on_before_backward", 8, id="third_epoch"),
        pytest.param("on_validation_batch_start", 0, id="validation"),
        pytest.param("on_validation_batch_start", 2, id="validation_at_the_end_of_an_epoch"),
        pytest.param("on_validation_epoch_end", 0, id="end_of_validation"),
    ],
)
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(hook, at, fit, tmp_path):
    whole, expected = fit()
    (tmp_path / "last.ckpt").unlink()
    with pytest.raises(SystemExit):
        fit(Send(hook, at=at))
    begins_at = load(tmp_path / "last.ckpt")["global_step"]
    assert 0 < begins_at < STEPS
    count = Send("none", at=-2)
    trainer, found = fit(count, ckpt_path=tmp_path / "last.ckpt")
    assert count.seen == [step for step in range(begins_at, STEPS) for _ in range(ACCUMULATE)]
    assert trainer.global_step == whole.global_step == STEPS
    assert largest_difference(found.parameters(), expected.parameters()) == 0
    assert largest_difference(found.buffers(), expected.buffers()) == 0
    rates = [t.optimizers[0].param_groups[0]["lr"] for t in (trainer, whole)]
    assert rates[0] == rates[1]
