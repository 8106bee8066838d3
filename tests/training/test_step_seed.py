from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from deeplab_lit.training.resumption import StepSeed


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
