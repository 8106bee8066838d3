import json
import math
from types import SimpleNamespace

import pytest
import torch

from deeplab_lit.runs import record
from deeplab_lit.runs.record import RunRecord, as_dict
from deeplab_lit.scoring.metric import Scores

CLASSES = ["sky", "tree", "bird"]


def scores(miou, iou=(0.5, 0.25, math.nan)):
    return Scores(miou, torch.tensor(iou, dtype=torch.double), 0.75, 0.625, 0.5, torch.zeros(3, 3))


def validate(callback, *mious):
    """Tell the record of validations with these scores, after 10, 20, … steps."""
    for i, miou in enumerate(mious, start=1):
        trainer = SimpleNamespace(
            sanity_checking=False, global_step=10 * i, is_global_zero=True, world_size=1,
            checkpoint_callbacks=[], callback_metrics={"val/miou": torch.tensor(miou)},
            state=SimpleNamespace(fn="fit"),
            strategy=SimpleNamespace(
                root_device=torch.device("cpu"), reduce=lambda number, reduce_op: number
            ),
        )  # fmt: skip
        module = SimpleNamespace(hparams=SimpleNamespace(classes=CLASSES), scores=scores(miou))
        callback.on_validation_end(trainer, module)
    return trainer


def read(folder):
    return json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)


def test_results_tell_what_came_out_and_of_what(make_module, make_data, make_trainer, tmp_path):
    callback = RunRecord(tmp_path, {"seed": 7, "note": "x"})
    trainer = make_trainer(callbacks=[callback], val_check_interval=2)
    trainer.fit(module := make_module(), make_data())
    found = read(tmp_path)
    assert found["finished"] is True
    assert (found["seed"], found["note"]) == (7, "x")
    assert found["steps"] == found["final"]["step"] == 4
    assert found["final"]["miou"] == module.scores.miou
    assert found["best"]["miou"] >= found["final"]["miou"]
    assert list(found["final"]["iou"]) == list(module.hparams.classes)
    assert found["final"].keys() == {
        "step", "images", "images_in_split", "miou", "classes_in_miou", "pixel_accuracy",
        "mean_accuracy", "fw_iou", "loss", "iou",
    }  # fmt: skip
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert {"python", "lightning", "torchvision", "torchmetrics"} < found["versions"].keys()
    assert found["parameters"] == sum(p.numel() for p in module.net.parameters())
    assert found["processes"] == 1
    assert found["device"].startswith("cpu")
    assert found["wall_seconds"] > 0
    assert isinstance(found["command"], list)
    assert "git_commit" in found


def test_validate_leaves_results_too(make_module, make_data, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[RunRecord(tmp_path, {"checkpoint": "a.ckpt"})])
    (logged,) = trainer.validate(make_module(), make_data(), verbose=False)
    found = read(tmp_path)
    assert found["finished"] is True
    assert found["checkpoint"] == "a.ckpt"
    assert found["final"]["miou"] == pytest.approx(logged["val/miou"])
    assert found["final"]["images"] == len(make_data().split("val").ids)


def test_a_run_that_crashes_has_the_results_so_far(make_module, make_data, make_trainer, tmp_path):
    module = make_module()

    def crash(*args):
        if module.global_step == 3:
            raise RuntimeError("crash")

    module.on_train_batch_start = crash
    trainer = make_trainer(callbacks=[RunRecord(tmp_path, {})], val_check_interval=2)
    with pytest.raises(RuntimeError, match="crash"):
        trainer.fit(module, make_data())
    found = read(tmp_path)
    assert found["finished"] is False
    assert found["final"]["step"] == 2


def test_the_check_before_training_is_not_a_result(make_module, make_data, make_trainer, tmp_path):
    callback = RunRecord(tmp_path, {})
    trainer = make_trainer(
        callbacks=[callback], num_sanity_val_steps=2, max_steps=1, val_check_interval=2
    )
    trainer.fit(make_module(), make_data())
    assert callback.best is None
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("mious", "best_step", "best"),
    [
        ((0.1, 0.3, 0.2), 20, 0.3),
        ((0.3, 0.3), 10, 0.3),
        ((math.nan, 0.2, math.nan), 20, 0.2),
        ((math.nan, math.nan), 10, None),
    ],
)
def test_the_best_is_kept(mious, best_step, best, tmp_path):
    validate(RunRecord(tmp_path, {}), *mious)
    found = read(tmp_path)
    assert (found["best"]["step"], found["best"]["miou"]) == (best_step, best)
    last = None if math.isnan(mious[-1]) else mious[-1]
    assert (found["final"]["step"], found["final"]["miou"]) == (10 * len(mious), last)


def test_a_resumed_run_knows_its_best_and_its_time(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(record, "time", SimpleNamespace(monotonic=lambda: clock.now))
    first = RunRecord(tmp_path, {})
    first.setup(None, SimpleNamespace(net=torch.nn.Linear(2, 1)), "fit")
    clock.now += 50
    validate(first, 0.1, 0.6)
    torch.save(first.state_dict(), tmp_path / "state")
    clock.now += 1000  # between the runs
    resumed = RunRecord(tmp_path, {}, resumes=True)
    resumed.setup(None, SimpleNamespace(net=torch.nn.Linear(2, 1)), "fit")
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert resumed.final["step"] == 20
    clock.now += 7
    validate(resumed, 0.2)
    found = read(tmp_path)
    assert (found["best"]["step"], found["best"]["miou"]) == (20, 0.6)
    assert found["final"]["miou"] == 0.2
    assert found["wall_seconds"] == 57
    assert found["parameters"] == 3


def test_the_best_is_that_of_the_metric_that_checkpoints_go_by(tmp_path):
    callback = RunRecord(tmp_path, {}, monitor="val/miou", mode="min")
    validate(callback, 0.2, 0.1, 0.3)
    assert read(tmp_path)["best"]["step"] == 20


def test_scores_that_are_one_to_the_checkpoint_are_one_here(tmp_path):
    """Metrics are 32 bits: the second is higher, but no reason to write best.ckpt."""
    validate(RunRecord(tmp_path, {}), 0.5, 0.5 + 1e-12)
    assert read(tmp_path)["best"]["step"] == 10


def test_another_metric_begins_its_search_anew(tmp_path):
    validate(first := RunRecord(tmp_path, {}), 0.6)
    other = RunRecord(tmp_path, {}, resumes=True, monitor="val/loss", mode="min")
    other.load_state_dict(first.state_dict())
    assert other.best is None
    assert other.final["miou"] == 0.6


def test_the_other_end_of_the_same_metric_begins_its_search_anew(tmp_path):
    validate(first := RunRecord(tmp_path, {}), 0.6)
    other = RunRecord(tmp_path, {}, resumes=True, mode="min")
    other.load_state_dict(first.state_dict())
    validate(other, 0.5)
    assert read(tmp_path)["best"]["miou"] == 0.5


def test_a_new_run_from_a_checkpoint_begins_with_nothing(tmp_path):
    validate(first := RunRecord(tmp_path, {}), 0.6)
    other = RunRecord(tmp_path / "new", {})
    other.load_state_dict(first.state_dict())
    assert (other.best, other.final, other.seconds_before) == (None, None, 0)


def test_scores_become_plain_numbers():
    found = as_dict(scores(0.375), CLASSES)
    assert found == {
        "miou": 0.375,
        "classes_in_miou": 2,
        "pixel_accuracy": 0.75,
        "mean_accuracy": 0.625,
        "fw_iou": 0.5,
        "iou": {"sky": 0.5, "tree": 0.25, "bird": None},
    }
    assert as_dict(scores(math.nan), CLASSES)["miou"] is None


def test_a_full_disk_leaves_the_results_so_far(tmp_path, monkeypatch):
    callback = RunRecord(tmp_path, {})
    validate(callback, 0.1)
    write = type(tmp_path).write_text

    def half(self, text, *args):
        write(self, text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_text", half)
    with pytest.raises(OSError, match="No space"):
        validate(callback, 0.2)
    assert read(tmp_path)["final"]["miou"] == 0.1


def test_results_say_of_how_many_images_and_classes(make_module, make_data, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[RunRecord(tmp_path, {})], limit_val_batches=1)
    trainer.validate(make_module(), make_data(), verbose=False)
    found = read(tmp_path)["final"]
    assert (found["images"], found["images_in_split"]) == (1, len(make_data().split("val").ids))
    assert found["classes_in_miou"] == sum(iou is not None for iou in found["iou"].values())
    assert as_dict(scores(0.4), CLASSES)["classes_in_miou"] == 2
