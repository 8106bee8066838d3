"""What a run leaves for Weights & Biases without an account, read back from the file."""

import importlib.util
from pathlib import Path

import pytest
import wandb

from deeplab_lit.cli import main

spec = importlib.util.spec_from_file_location(
    "wandb_file", Path(__file__).with_name("wandb_file.py")
)
wandb_file = importlib.util.module_from_spec(spec)
spec.loader.exec_module(wandb_file)


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny_args):
    """Records of the offline file of a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_TAGS", "ablation,rates")
        patch.delenv("WANDB_PROJECT", raising=False)
        wandb.teardown()
        runs = tmp_path_factory.mktemp("offline")
        options = {"--experiment": "rates", "--run": "one", "--wandb_checkpoint": "true"}
        options |= {"--trainer.log_every_n_steps": "1"}
        main("fit", tiny_args(runs, **options))
        wandb.finish()
        wandb.teardown()
    (file,) = (runs / "rates/one/wandb").glob("offline-run-*/run-*.wandb")
    return list(wandb_file.records(file))


@pytest.fixture(scope="module")
def rows(written):
    return [wandb_file.values(r.history.item) for r in written if r.HasField("history")]


def test_a_run_is_filed_so_that_a_dashboard_needs_no_clicking(written):
    (run,) = [record.run for record in written if record.HasField("run")][:1]
    assert (run.project, run.run_group, run.job_type) == ("deeplab_lit", "rates", "fit")
    assert (run.display_name, run.run_id) == ("one", "rates-one")
    assert list(run.tags) == ["ablation", "rates"]


def test_the_configuration_is_nested(written):
    config = {}
    for record in written:
        updates = record.run.config.update if record.HasField("run") else record.config.update
        config |= wandb_file.values(updates)
    assert config["model"]["atrous_rates"] == [2, 4]
    assert config["data"]["class_path"] == "deeplab_lit.data.Shapes"


def test_the_best_miou_is_what_a_run_is_summed_up_by(written):
    metrics = {record.metric.name: record.metric for record in written if record.HasField("metric")}
    assert metrics["val/miou"].summary.max


def test_scores_rates_and_speed_are_in_the_history(rows):
    names = {name for row in rows for name in row}
    assert names >= {
        "val/miou",
        "val/pixel_accuracy",
        "val/iou/background",
        "train/loss",
        "train/images_per_second",
        "lr/backbone",
        "lr/head.weight",
    }
    assert sum("val/miou" in row for row in rows) == 2


def test_predictions_and_the_confusion_matrix_are_there(rows):
    pictures, *_ = [row for row in rows if "val/images._type" in row]
    assert pictures["val/images._type"] == "images/separated"
    masks = [set(names) for names in pictures["val/images.all_masks"]]
    assert masks == [{"truth", "prediction"}] * 3
    table, *_ = [row for row in rows if "val/confusion._type" in row]
    assert table["val/confusion._type"] == "table-file"
    assert (table["val/confusion.nrows"], table["val/confusion.ncols"]) == (49, 3)


def test_the_best_checkpoint_is_an_artifact_on_request(written):
    found = [
        record.request.log_artifact.artifact for record in written if record.HasField("request")
    ]
    found += [record.artifact for record in written if record.HasField("artifact")]
    (artifact,) = [a for a in found if a.type == "model"]
    assert artifact.name == "rates-one-best"
    assert [entry.path for entry in artifact.manifest.contents] == ["best.ckpt"]
