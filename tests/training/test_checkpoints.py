import pytest
import torch

from deeplab_lit.training.checkpoints import BestAndLast


def step(path):
    return torch.load(path, weights_only=True)["global_step"]


@pytest.fixture
def fit(make_module, make_data, make_trainer, tmp_path):
    def run(mious, steps, **kwargs):
        class Scripted(type(make_module())):
            def on_validation_epoch_end(self):
                self.metric.reset()
                self.log("val/miou", mious[self.global_step])

        best = BestAndLast(tmp_path, "best", monitor="val/miou", mode="max")
        options = {"callbacks": [best], "enable_checkpointing": True, "max_steps": steps}
        trainer = make_trainer(**options, val_check_interval=2, check_val_every_n_epoch=None)
        module = make_module()
        module.__class__ = Scripted
        trainer.fit(module, make_data(), weights_only=True, **kwargs)
        return best

    return run


def test_best_is_the_best_and_last_the_last_validation(fit, tmp_path):
    best = fit({2: 0.5, 4: 0.7, 6: 0.6}, steps=6)
    assert best.best_model_path == str(tmp_path / "best.ckpt")
    assert (step(tmp_path / "best.ckpt"), step(tmp_path / "last.ckpt")) == (4, 6)
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_steps_after_the_last_validation_are_kept(fit, tmp_path):
    fit({2: 0.5, 4: 0.4}, steps=5)
    assert (step(tmp_path / "best.ckpt"), step(tmp_path / "last.ckpt")) == (2, 5)


def test_a_run_that_goes_on_remembers_its_best(fit, tmp_path):
    fit({2: 0.9}, steps=2)
    best = fit({4: 0.3}, steps=4, ckpt_path=tmp_path / "last.ckpt")
    assert best.best_model_score == pytest.approx(0.9)
    assert (step(tmp_path / "best.ckpt"), step(tmp_path / "last.ckpt")) == (2, 4)
