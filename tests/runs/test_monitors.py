import pytest
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from deeplab_lit.runs.monitors import all_known, check_monitors, logged_names


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
def test_a_metric_that_is_not_there_is_named_with_those_that_are(callback):
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
