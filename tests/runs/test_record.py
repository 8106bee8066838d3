import json
import math
import subprocess
from types import SimpleNamespace

import pytest
import torch

from deeplab_lit.runs import record
from deeplab_lit.runs.record import RunRecord, git_commit
from deeplab_lit.scoring.metric import Scores
from deeplab_lit.scoring.observer import Results
from deeplab_lit.scoring.validation import Validation

CLASSES = ["sky", "tree", "bird"]


def results(miou=0.375):
    """A validation with this mIoU; a class is absent."""
    scores = Scores(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), loss=0.5)
    scores.scalars["miou"] = miou
    return Results(scores, None, {}, {}, {}, images=2, images_in_split=3, classes=CLASSES)


def validate(record, *mious):
    """Tell the record of validations with these scores, after 10, 20, … steps."""
    for i, miou in enumerate(mious, start=1):
        trainer = SimpleNamespace(
            sanity_checking=False, global_step=10 * i, is_global_zero=True, world_size=1,
            checkpoint_callbacks=[], callback_metrics={"val/miou": torch.tensor(miou)},
            state=SimpleNamespace(fn="fit"),
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )  # fmt: skip
        record.take(trainer, results(miou))


def recording(folder, about):
    """The record of a run, with what tells it of validations."""
    record = RunRecord(folder, about)
    return [record, Validation(report=record.take)]


def read(folder):
    return json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)


def test_results_tell_what_came_out_and_of_what(make_module, make_data, make_trainer, tmp_path):
    about = {"seed": 7}
    callbacks = recording(tmp_path, about)
    callbacks[0].add(note="x")
    trainer = make_trainer(callbacks=callbacks, val_check_interval=2)
    trainer.fit(module := make_module(), make_data())
    found = read(tmp_path)
    assert found["finished"] is True
    assert (found["seed"], found["note"]) == (7, "x")
    assert about == {"seed": 7}  # nobody writes into what was handed over
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
    trainer = make_trainer(callbacks=recording(tmp_path, {"checkpoint": "a.ckpt"}))
    (logged,) = trainer.validate(make_module(), make_data(), verbose=False)
    found = read(tmp_path)
    assert found["finished"] is True
    assert found["checkpoint"] == "a.ckpt"
    assert found["final"]["miou"] == pytest.approx(logged["val/miou"])
    assert found["final"]["images"] == len(make_data().validation().ids)


def test_a_run_that_crashes_has_the_results_so_far(make_module, make_data, make_trainer, tmp_path):
    module = make_module()

    def crash(*args):
        if module.global_step == 3:
            raise RuntimeError("crash")

    module.on_train_batch_start = crash
    trainer = make_trainer(callbacks=recording(tmp_path, {}), val_check_interval=2)
    with pytest.raises(RuntimeError, match="crash"):
        trainer.fit(module, make_data())
    found = read(tmp_path)
    assert found["finished"] is False
    assert found["final"]["step"] == 2


def test_the_check_before_training_is_not_a_result(make_module, make_data, make_trainer, tmp_path):
    callbacks = recording(tmp_path, {})
    trainer = make_trainer(
        callbacks=callbacks, num_sanity_val_steps=2, max_steps=1, val_check_interval=2
    )
    trainer.fit(make_module(), make_data())
    assert callbacks[0].best is None
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
    trainer = make_trainer(callbacks=recording(tmp_path, {}), limit_val_batches=1)
    trainer.validate(make_module(), make_data(), verbose=False)
    found = read(tmp_path)["final"]
    assert (found["images"], found["images_in_split"]) == (1, len(make_data().validation().ids))
    assert found["classes_in_miou"] == sum(iou is not None for iou in found["iou"].values())
    assert results().as_dict()["classes_in_miou"] == 2


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder that is taken for the package's."""
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    for key in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def test_the_commit_is_known_and_marked_when_changed(source):
    def git(*args):
        name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        run = subprocess.run(["git", *name, *args], cwd=source, check=True, capture_output=True)
        return run.stdout.decode().strip()

    assert git_commit() is None  # outside a repository
    git("init")
    assert git_commit() is None  # nothing committed
    (source / "record.py").write_text("1")
    git("add", "record.py")
    git("commit", "-m", "first")
    assert git_commit() == git("rev-parse", "HEAD")
    (source / "untracked").write_text("")
    assert git_commit() == git("rev-parse", "HEAD")
    (source / "record.py").write_text("2")
    assert git_commit() == git("rev-parse", "HEAD") + "+"


def test_the_repository_of_somebody_elses_project_around_an_environment_is_not_ours(source):
    subprocess.run(["git", "init"], cwd=source, check=True, capture_output=True)
    who = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    commit = [*who, "commit", "--allow-empty", "-m", "theirs"]
    subprocess.run(commit, cwd=source, check=True, capture_output=True)
    (source / "record.py").write_text("installed into it")
    assert git_commit() is None


def test_an_installed_package_knows_the_commit_that_it_was_installed_from(tmp_path, monkeypatch):
    """As `pip install git+…` notes it; another installation than this source says nothing."""
    about = tmp_path / "deeplab_lit-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.4\nName: deeplab_lit\nVersion: 0.1.0\n")
    vcs = {"vcs": "git", "commit_id": "abc123", "requested_revision": "main"}
    (about / "direct_url.json").write_text(json.dumps({"url": "https://x", "vcs_info": vcs}))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() != "abc123"
    monkeypatch.setattr(record, "__file__", str(tmp_path / "deeplab_lit/runs/record.py"))
    assert git_commit() == "abc123"
    (about / "direct_url.json").unlink()  # from a wheel, or a package index
    assert git_commit() is None


def test_no_commit_is_known_where_git_is_missing(source, monkeypatch):
    monkeypatch.setenv("PATH", str(source))
    assert git_commit() is None
