"""What a run leaves for Weights & Biases without an account, read back with W&B's own command."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny_args):
    """Records of a run's offline file by type, as `wandb leet inspect --json` prints them."""
    folder = tmp_path_factory.mktemp("offline")
    options = {"--experiment": "rates", "--run": "one", "--wandb_checkpoint": "true"}
    options |= {"--trainer.log_every_n_steps": "1"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environment |= {"WANDB_MODE": "offline", "WANDB_TAGS": "ablation,rates"}
    environment |= {"WANDB_DATA_DIR": str(folder), "WANDB_CACHE_DIR": str(folder)}
    run = {"env": environment, "capture_output": True, "text": True, "timeout": 300, "check": True}
    fit = [sys.executable, "-m", "deeplab_lit.fit", *tiny_args(folder / "runs", **options)]
    subprocess.run(fit, **run)
    (file,) = (folder / "runs/rates/one/wandb").glob("offline-run-*/run-*.wandb")
    read = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    found = {}
    for line in subprocess.run(read, **run).stdout.splitlines():
        record = json.loads(line)
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


@pytest.fixture(scope="module")
def rows(written):
    return [row["item"] for row in written["history"]]


def test_a_run_is_filed_so_that_a_dashboard_needs_no_clicking(written):
    run = written["run"][0]
    assert (run["project"], run["run_group"], run["job_type"]) == ("deeplab_lit", "rates", "fit")
    assert (run["display_name"], run["run_id"]) == ("one", "rates-one")
    assert run["tags"] == ["ablation", "rates"]


def test_the_configuration_is_nested(written):
    config = written["config"][-1]["update"]
    assert config["model"]["atrous_rates"] == [2, 4]
    assert config["data"]["class_path"] == "deeplab_lit.data.Shapes"


def test_a_run_is_summed_up_by_its_best_miou(written, rows):
    assert {"name": "val/miou", "options": {"defined": True}, "summary": {"max": True}} in written[
        "metric"
    ]
    best = max(row["val/miou"] for row in rows if "val/miou" in row)
    sums = [s["update"]["val/miou"] for s in written["summary"] if "val/miou" in s["update"]]
    assert sums[-1] == {"max": best}


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
    pictures = next(row for row in rows if "val/images._type" in row)
    assert pictures["val/images._type"] == "images/separated"
    masks = [set(names) for names in pictures["val/images.all_masks"]]
    assert masks == [{"truth", "prediction"}] * 3
    table = next(row for row in rows if "val/confusion._type" in row)
    assert table["val/confusion._type"] == "table-file"
    assert (table["val/confusion.nrows"], table["val/confusion.ncols"]) == (49, 3)


def test_the_best_checkpoint_is_an_artifact_on_request(written):
    (artifact,) = [a for a in written["artifact"] if a["type"] == "model"]
    assert artifact["name"] == "rates-one-best"
    assert [entry["path"] for entry in artifact["manifest"]["contents"]] == ["best.ckpt"]
