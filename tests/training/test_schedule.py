import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import SGD

from deeplab_lit.training.schedule import poly, poly_schedule

# 2.5e-4 · (1 − step/20000)^0.9; half-way 2.5e-4 · 0.535887, at the end 2.5e-4 · 1.346087e-4
RATES = {0: 2.5e-4, 1: 2.4998875e-4, 10_000: 1.3397168e-4, 19_999: 3.365217e-8}


class Rates(Callback):
    """The learning rate of the backbone at each batch, with the number of optimizer steps."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, *args):
        self.seen.append((trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"]))


def sgd(*rates):
    return SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in rates])


@pytest.mark.parametrize(("step", "expected"), RATES.items())
def test_the_papers_learning_rate(step, expected):
    assert 2.5e-4 * poly(step, 20_000, 0.9) == pytest.approx(expected, rel=1e-6)


def test_learning_rate_is_zero_at_the_end_and_after_it():
    assert poly(20_000, 20_000, 0.9) == 0
    assert poly(20_001, 20_000, 0.9) == 0


def test_all_groups_fall_together():
    optimizer = sgd(1.0, 2.0, 10.0, 20.0)
    schedule = poly_schedule(optimizer, 4, 0.9)
    for factor in (1, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0, 0):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([factor * x for x in (1, 2, 10, 20)])
        optimizer.step()
        schedule.step()


def test_a_run_resumed_for_longer_follows_the_new_length():
    old = poly_schedule(optimizer := sgd(1.0), 10, 0.9)
    for _ in range(10):
        optimizer.step()
        old.step()
    assert optimizer.param_groups[0]["lr"] == 0
    new = poly_schedule(longer := sgd(1.0), 20, 0.9)
    longer.load_state_dict(optimizer.state_dict())
    new.load_state_dict(old.state_dict())
    longer.step()
    new.step()
    assert longer.param_groups[0]["lr"] == pytest.approx((1 - 11 / 20) ** 0.9)


def test_accumulated_batches_count_as_one_step(make_data, make_module, make_trainer):
    rates = Rates()
    trainer = make_trainer(
        max_steps=3, accumulate_grad_batches=2, limit_val_batches=0, callbacks=[rates]
    )
    trainer.fit(make_module(lr=1.0, weight_decay=0.0), make_data(train_size=4))
    expected = [(0, 1), (0, 1), (1, (2 / 3) ** 0.9), (1, (2 / 3) ** 0.9)]
    expected += [(2, (1 / 3) ** 0.9), (2, (1 / 3) ** 0.9)]
    assert [step for step, _ in rates.seen] == [step for step, _ in expected]
    assert [lr for _, lr in rates.seen] == pytest.approx([lr for _, lr in expected])
