import math
from datetime import timedelta

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from deeplab_lit.runs.checkpoints import BestAndLast, all_known, check_monitors, logged_names


def step(path):
    return torch.load(path, weights_only=True)["global_step"]


@pytest.fixture
def fit(make_module, make_data, make_trainer, tmp_path):
    def run(mious, steps, best=None, **kwargs):
        class Scripted(type(make_module())):
            def on_validation_epoch_end(self):
                self.metric.reset()
                self.log("val/miou", mious[self.global_step])

            def on_validation_end(self):
                """Nothing has been scored."""

        best = best or BestAndLast(tmp_path, "best", monitor="val/miou", mode="max")
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


@pytest.mark.parametrize(
    "options",
    [
        {"save_top_k": 3},
        {"save_top_k": -1},
        {"filename": "{step}"},
        {"save_last": "link"},
        {"save_last": False},
        {"every_n_train_steps": 1},
        {"train_time_interval": timedelta(seconds=1)},
        {"every_n_epochs": 2},
        {"save_on_train_epoch_end": True},
        {"monitor": None},
    ],
)
def test_options_that_would_give_other_files_are_refused(options):
    (name,) = options
    with pytest.raises(MisconfigurationException, match=rf"--checkpoint.{name} is "):
        BestAndLast(**{"monitor": "val/miou", "mode": "max"} | options)


@pytest.mark.parametrize(
    "options",
    [
        {"save_last": True},
        {"save_on_exception": True},
        {"enable_version_counter": True, "auto_insert_metric_name": True},
        {"every_n_epochs": 1},
        {"save_weights_only": True},
    ],
)
def test_other_options_leave_the_same_two_files(options, fit, tmp_path):
    best = BestAndLast(tmp_path, monitor="val/miou", mode="max", **options)
    fit({2: 0.5, 4: 0.7, 6: 0.6}, steps=6, best=best)
    assert (step(tmp_path / "best.ckpt"), step(tmp_path / "last.ckpt")) == (4, 6)
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_the_lowest_can_be_the_best(fit, tmp_path):
    best = BestAndLast(tmp_path, monitor="val/miou", mode="min")
    fit({2: 0.5, 4: 0.3, 6: 0.6}, steps=6, best=best)
    assert step(tmp_path / "best.ckpt") == 4


def test_any_number_is_better_than_none(fit, tmp_path):
    fit({2: math.nan, 4: 0.1, 6: math.nan}, steps=6)
    assert step(tmp_path / "best.ckpt") == 4


def test_a_metric_that_is_not_there_is_named_with_those_that_are(fit, tmp_path):
    best = BestAndLast(tmp_path, monitor="val/mIoU", mode="max")
    with pytest.raises(MisconfigurationException, match=r"monitor val/mIoU: .* have val/miou$"):
        fit({2: 0.5}, steps=2, best=best)


def test_a_best_that_a_kill_has_prevented_is_made_from_the_last(fit, tmp_path):
    """last.ckpt is written first, and knows that it is the best."""
    fit({2: 0.5, 4: 0.7}, steps=4)
    expected = (tmp_path / "best.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(expected)  # as it was before best.ckpt was written
    (tmp_path / "best.ckpt").unlink()
    fit({2: 0.5}, steps=2, best=BestAndLast(tmp_path / "new", monitor="val/miou", mode="max"))
    (tmp_path / "new/best.ckpt").rename(tmp_path / "best.ckpt")
    fit({6: 0.6}, steps=6, ckpt_path=tmp_path / "last.ckpt")
    assert (step(tmp_path / "best.ckpt"), step(tmp_path / "last.ckpt")) == (4, 6)


def test_a_run_that_only_starts_from_a_checkpoint_begins_its_search_anew(fit, tmp_path):
    fit({2: 0.9}, steps=2)
    new = BestAndLast(tmp_path / "new", monitor="val/miou", mode="max")
    fit({4: 0.3}, steps=4, best=new, ckpt_path=tmp_path / "last.ckpt")
    assert step(tmp_path / "new/best.ckpt") == 4
    assert step(tmp_path / "best.ckpt") == 2


def test_the_names_are_those_that_a_run_logs(make_module, make_data, make_trainer):
    module = make_module()
    trainer = make_trainer(val_check_interval=4)
    trainer.fit(module, make_data())
    names = logged_names(module.hparams.classes, crf=False)
    assert trainer.callback_metrics.keys() <= set(names)
    rest = set(names) - trainer.callback_metrics.keys()
    assert all(name.startswith(("val/iou/", "lr/backbone.bias")) for name in rest)
    crf = set(logged_names(["a"], crf=True)) - set(logged_names(["a"], crf=False))
    assert crf >= {"val_crf/miou", "val_crf/iou/a"}
    assert "val_crf/loss" not in crf


@pytest.mark.parametrize("callback", [EarlyStopping("val/los"), ModelCheckpoint(monitor="val/los")])
def test_a_metric_to_watch_that_is_not_there_is_named_with_those_that_are(callback):
    with pytest.raises(
        MisconfigurationException, match=r"watches val/los, .* there are: val/loss, val/miou"
    ):
        check_monitors([callback], ["val/loss", "val/miou"])


def test_a_metric_that_is_there_or_may_be_missing_is_watched():
    loose = EarlyStopping("mine", strict=False)
    counters = ModelCheckpoint(monitor="step"), ModelCheckpoint()
    check_monitors([EarlyStopping("val/loss"), loose, *counters], ["val/loss"])


def test_a_callback_of_others_may_log_what_is_not_known():
    assert all_known([EarlyStopping("x"), ModelCheckpoint()])
    assert not all_known([LearningRateMonitor()])


def test_a_class_that_is_not_seen_ends_a_training_at_its_first_validation(
    make_module, make_data, make_trainer
):
    trainer = make_trainer(callbacks=[EarlyStopping("val/iou/unicorn")], val_check_interval=2)
    with pytest.raises(MisconfigurationException, match="val/iou/background"):
        trainer.fit(make_module(), make_data())
    assert trainer.global_step == 2


def test_the_highest_loss_is_not_taken_for_the_best():
    callback = ModelCheckpoint(monitor="val/loss", mode="max")
    with pytest.raises(MisconfigurationException, match="set mode min"):
        check_monitors([callback], ["val/loss"])
    callback.mode = "min"
    check_monitors([callback], ["val/loss"])


@pytest.mark.parametrize("monitor", ["val/miou", "val_crf/iou/a"])
def test_a_score_that_is_best_when_low_is_spoken_of(monitor):
    with pytest.warns(UserWarning, match="set mode max, unless"):
        check_monitors([EarlyStopping(monitor)], [monitor])
