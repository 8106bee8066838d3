import csv
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

from deeplab_lit.data.image import DataError
from deeplab_lit.runs.checkpoints import BestAndLast
from deeplab_lit.runs.csv_logger import MetricsFile
from deeplab_lit.runs.record import RunRecord
from deeplab_lit.scoring.validation import Validation
from deeplab_lit.training.divergence import TrainingDiverged
from deeplab_lit.training.resumption import SaveOnSignal, StepSeed

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
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
def _usual_handlers():
    """The tests may run where signals are ignored: under nohup, or behind a shell's &."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def fit(make_module, make_data, make_trainer, tmp_path):
    """Trains for three epochs of two steps of two batches, validating after every step."""

    def run(*callbacks, ckpt_path=None, folder=tmp_path, **kwargs):
        options = {"max_steps": STEPS, "accumulate_grad_batches": ACCUMULATE, "max_epochs": -1}
        options |= {"val_check_interval": ACCUMULATE, "check_val_every_n_epoch": None}
        best = BestAndLast(folder, "best", monitor="val/miou", mode="max")
        options |= {"callbacks": [StepSeed(), SaveOnSignal(), *callbacks, best]}
        options |= {"enable_checkpointing": True}
        trainer = make_trainer(**{**options, **kwargs})
        module = make_module(lr=0.1)
        module.net.head = nn.Sequential(nn.Dropout(0.3), module.net.head)
        module.net.head.new_layers = module.net.head[1].new_layers
        images = PER_EPOCH * ACCUMULATE * 2 + 1
        data = make_data(train_size=images, val_size=2, crop_size=33)
        trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
        return trainer, module

    return run


@pytest.fixture(scope="module")
def uninterrupted():
    """Name → what that run gave: each is trained once for all tests of this file."""
    return {}


@pytest.fixture
def whole(fit, uninterrupted, tmp_path_factory):
    """The trainer and the module of an uninterrupted run."""
    if "plain" not in uninterrupted:
        uninterrupted["plain"] = fit(folder=tmp_path_factory.mktemp("whole"))
    return uninterrupted["plain"]


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
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(hook, at, fit, whole, tmp_path):
    with pytest.raises(SystemExit):
        fit(Send(hook, at=at))
    begins_at = load(tmp_path / "last.ckpt")["global_step"]
    assert 0 < begins_at < STEPS
    count = Send("none", at=-2)
    trainer, module = fit(count, ckpt_path=tmp_path / "last.ckpt")
    expected_trainer, expected = whole
    assert count.seen == [step for step in range(begins_at, STEPS) for _ in range(ACCUMULATE)]
    assert trainer.global_step == expected_trainer.global_step == STEPS
    assert largest_difference(module.parameters(), expected.parameters()) == 0
    assert largest_difference(module.buffers(), expected.buffers()) == 0
    rates = [t.optimizers[0].param_groups[0]["lr"] for t in (trainer, expected_trainer)]
    assert rates[0] == rates[1]


def killed(function):
    """Whether a process of its own that does this was killed."""
    if (child := os.fork()) == 0:
        try:
            function()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


EVERY_EPOCH = {"val_check_interval": 1.0, "check_val_every_n_epoch": 1}
WITHIN_STEPS = {"val_check_interval": 3}  # batches, of which a step takes two
KILLS = [
    *[({}, "on_train_batch_end", at) for at in (7, 8)],
    ({}, "on_validation_batch_start", 5),
    ({}, "on_validation_end", 1),
    *[({}, "on_save_checkpoint", at) for at in (2, 3)],
    *[(EVERY_EPOCH, "on_train_epoch_end", at) for at in (1, 2)],
    (EVERY_EPOCH, "on_save_checkpoint", 2),
    (EVERY_EPOCH, "on_train_batch_end", 6),
    (WITHIN_STEPS, "on_train_batch_end", 9),
    (WITHIN_STEPS, "on_validation_end", 2),
]


@pytest.mark.parametrize(("options", "hook", "at"), KILLS)
def test_what_a_killed_run_leaves_when_it_goes_on_is_what_a_whole_one_leaves(
    options, hook, at, fit, uninterrupted, tmp_path, tmp_path_factory
):
    def run(folder, *callbacks, **more):
        log = MetricsFile(folder, more.pop("resume_step", None))
        record = RunRecord(folder, {}, resumes=True)
        best = BestAndLast(folder, monitor="val/miou", mode="max")
        stop = EarlyStopping("val/miou", patience=100)
        scored = Validation(report=record.take)
        order = [StepSeed(), record, scored, SaveOnSignal(), *callbacks, stop, best]
        return *fit(**options, **more, logger=log, callbacks=order), record, stop

    key = f"recorded {options}"
    if key not in uninterrupted:
        whole_folder = tmp_path_factory.mktemp("recorded")
        uninterrupted[key] = whole_folder, *run(whole_folder)
    whole_folder, whole, expected, record, stop = uninterrupted[key]
    folder = tmp_path / "parts"
    assert killed(lambda: run(folder, Send(hook, signal.SIGKILL, at=at)))
    last = folder / "last.ckpt"
    step = load(last)["global_step"]
    resumed, module, record_2, stop_2 = run(folder, ckpt_path=last, resume_step=step)

    assert largest_difference(module.parameters(), expected.parameters()) == 0
    assert rows(folder) == rows(whole_folder)
    assert (record_2.best, record_2.final) == (record.best, record.final)
    assert load(folder / "best.ckpt")["global_step"] == record.best["step"]
    assert (resumed.current_epoch, resumed.global_step) == (whole.current_epoch, STEPS)
    assert (stop_2.wait_count, stop_2.best_score) == (stop.wait_count, stop.best_score)


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("options", [{}, EVERY_EPOCH, WITHIN_STEPS])
def test_a_run_that_has_ended_and_is_extended_logs_every_step_once(
    options, steps, fit, uninterrupted, tmp_path, tmp_path_factory
):
    def run(folder, **more):
        log = MetricsFile(folder, more.pop("resume_step", None))
        best = BestAndLast(folder, monitor="val/miou", mode="max")
        fit(**options, **more, logger=log, callbacks=[StepSeed(), SaveOnSignal(), best])

    key = f"logged {options}"
    if key not in uninterrupted:
        uninterrupted[key] = tmp_path_factory.mktemp("logged")
        run(uninterrupted[key])
    run(tmp_path / "parts", max_steps=steps)
    last = tmp_path / "parts/last.ckpt"
    run(tmp_path / "parts", ckpt_path=last, resume_step=steps)
    logged, expected = rows(tmp_path / "parts"), rows(uninterrupted[key])
    for key in ("step", "epoch"):
        assert [row[key] for row in logged] == [row[key] for row in expected]
    validated = [[bool(row["val/miou"]) for row in table] for table in (logged, expected)]
    assert validated[0] == validated[1]


class Fail(Callback):
    """Raises something at a chosen moment."""

    def __init__(self, hook, error, *, at=0):
        self.error, self.at, self.calls = error, at, -1
        setattr(self, hook, self._hook)

    def _hook(self, *args):
        self.calls += 1
        if self.calls == self.at:
            raise self.error


@pytest.mark.parametrize(
    ("hook", "at", "step"),
    [
        ("on_train_batch_start", 6, 3),
        ("on_before_backward", 5, 2),
        ("on_validation_batch_start", 3, 4),
    ],
)
def test_an_error_saves_what_was_trained_and_the_run_goes_on(
    hook, at, step, fit, whole, tmp_path, capsys
):
    with pytest.raises(DataError, match="bad mask"):
        fit(Fail(hook, DataError("bad mask"), at=at), val_check_interval=4)
    assert load(tmp_path / "last.ckpt")["global_step"] == step
    said = capsys.readouterr().err
    assert f"Saved step {step}" in said
    assert "--ckpt_path last goes on" in said
    _, module = fit(ckpt_path=tmp_path / "last.ckpt")
    assert largest_difference(module.parameters(), whole[1].parameters()) == 0


@pytest.mark.parametrize(
    ("hook", "at", "error"),
    [
        ("on_before_backward", 1, DataError("in the first step")),
        ("on_before_zero_grad", 4, KeyboardInterrupt()),
        ("on_train_batch_start", 6, TrainingDiverged("no number")),
        ("on_before_optimizer_step", 3, RuntimeError("the step is half done")),
    ],
)
def test_what_is_no_use_or_half_a_step_is_not_saved(hook, at, error, fit, tmp_path):
    with pytest.raises((type(error), SystemExit)):
        fit(Fail(hook, error, at=at), val_check_interval=100)
    assert not (tmp_path / "last.ckpt").exists()


def test_an_error_that_leaves_no_room_to_save_is_still_what_is_told(fit, monkeypatch, capsys):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(BestAndLast, "save_as_last", Fail("x", full)._hook)
    with pytest.raises(DataError, match="bad mask"):
        fit(Fail("on_train_batch_start", DataError("bad mask"), at=4), val_check_interval=100)
    assert "could not be saved: [Errno 28]" in capsys.readouterr().err


def test_a_terminal_that_was_to_be_outlived_is_not_listened_to(fit):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    trainer, _ = fit(Send("on_before_backward", signal.SIGHUP, at=4))
    assert trainer.global_step == STEPS


def test_a_closed_terminal_saves_and_ends(fit, tmp_path):
    with pytest.raises(SystemExit) as exit:
        fit(Send("on_before_backward", signal.SIGHUP, at=4))
    assert exit.value.code == 128 + signal.SIGHUP
    assert load(tmp_path / "last.ckpt")["global_step"] == 3


def test_a_validation_that_was_killed_is_done_again(fit, tmp_path):
    """The signal has saved within it, and the process was killed before it ended."""

    class Both(Send):
        def _hook(self, trainer, *args):
            super()._hook(trainer, *args)
            if self.calls == self.at + 1:
                os.kill(os.getpid(), signal.SIGKILL)

    def run(*callbacks, **options):
        log = MetricsFile(tmp_path, options.pop("resume_step", None))
        best = BestAndLast(tmp_path, monitor="val/miou", mode="max")
        fit(logger=log, callbacks=[StepSeed(), SaveOnSignal(), *callbacks, best], **options)

    run()
    expected = rows(tmp_path)
    (tmp_path / "last.ckpt").unlink()
    assert killed(lambda: run(Both("on_validation_batch_start", at=2)))
    assert load(tmp_path / "last.ckpt")["global_step"] == 2
    run(ckpt_path=tmp_path / "last.ckpt", resume_step=2)
    assert rows(tmp_path) == expected


class Draw(Callback):
    """Draws noise in every batch, as dropout does, and wastes some before."""

    def __init__(self, waste=0):
        self.waste, self.noise = waste, []

    def on_train_start(self, trainer, module):
        torch.rand(self.waste)

    def on_before_backward(self, trainer, *args):
        self.noise.append((trainer.global_step, torch.rand(4).tolist()))
        torch.rand(self.waste)


@pytest.fixture
def draw(make_module, make_data, make_trainer):
    def run(*, waste=0, seed=0, **kwargs):
        callback = Draw(waste)
        trainer = make_trainer(
            callbacks=[StepSeed(), callback], limit_val_batches=0, **{"max_steps": 3, **kwargs}
        )
        torch.manual_seed(seed)
        module, data = make_module(), make_data(train_size=8)
        torch.manual_seed(seed)
        trainer.fit(module, data)
        return callback.noise

    return run


def test_noise_depends_on_the_step_and_not_on_what_was_drawn_before(draw):
    assert draw() == draw(waste=5)


def test_every_step_and_every_batch_of_a_step_has_its_own_noise(draw):
    noise = draw(accumulate_grad_batches=2)
    assert [step for step, _ in noise] == [0, 0, 1, 1, 2, 2]
    assert len({tuple(values) for _, values in noise}) == 6


def test_another_seed_gives_other_noise(draw):
    assert all(a != b for a, b in zip(draw(), draw(seed=1), strict=True))


def test_other_processes_have_other_noise():
    noise = []
    for rank in (0, 1):
        trainer = SimpleNamespace(global_rank=rank, global_step=3, accumulate_grad_batches=1)
        callback = StepSeed()
        torch.manual_seed(0)
        callback.on_train_start(trainer, None)
        callback.on_train_batch_start(trainer, None, {}, 0)
        noise.append(torch.rand(4).tolist())
    assert noise[0] != noise[1]


def test_the_seed_is_as_before_when_training_has_ended(draw):
    draw(seed=7)
    assert torch.initial_seed() == 7
