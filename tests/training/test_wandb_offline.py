"""What a run leaves for Weights & Biases without an account, read back with W&B's own command."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb_workspaces.reports.v2 as wr
import yaml
from click.testing import CliRunner
from PIL import Image
from wandb.cli.cli import cli as wandb_commands

import deeplab_lit
from deeplab_lit.ablate.dashboard import build_dashboards
from deeplab_lit.ablate.sweep import read_sweep
from deeplab_lit.data import Shapes
from deeplab_lit.segment.segmenter import Segmenter

ROOT = Path(deeplab_lit.__file__).parents[1]
TABLES = "files/media/table"


COMMANDS = """
import json, sys
from importlib import import_module
for verb, args in json.loads(sys.argv[1]).items():
    import_module(f"deeplab_lit.{verb}").main(args)
    for stream in (sys.stdout, sys.stderr):
        print("END", file=stream, flush=True)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_args):
    """Of a training and of its validation with the CRF, offline and in one process: their records.

    Each by type, as W&B's own command prints them, and what was shown on the screen.
    """
    folder = tmp_path_factory.mktemp("offline")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environment |= {"WANDB_MODE": "offline", "WANDB_TAGS": "ablation,rates", "WANDB_ENTITY": "us"}
    environment |= {"WANDB_DATA_DIR": str(folder), "WANDB_CACHE_DIR": str(folder)}
    run = {"env": environment, "capture_output": True, "text": True, "timeout": 300, "check": True}

    name = [f"--runs_dir={folder}", "--experiment=rates"]
    options = {"--wandb_checkpoint": "true", "--trainer.log_every_n_steps": "1"}
    checkpoint = folder / "rates/fit/checkpoints/best.ckpt"
    commands = {
        "fit": ["--run=fit", *name, *tiny_args("", **options, **{"--runs_dir": None})],
        "validate": ["--run=validate", *name, f"--ckpt_path={checkpoint}", "--crf", "--crf.bi_w=0"],
    }
    done = subprocess.run([sys.executable, "-c", COMMANDS, json.dumps(commands)], **run)
    outs, errs = (text.split("END\n", 1) for text in (done.stdout, done.stderr))
    found = {}
    for verb, out, err in zip(commands, outs, errs, strict=True):
        (file,) = (folder / f"rates/{verb}/wandb").glob("offline-run-*/run-*.wandb")
        read = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        found[verb] = {"folder": folder / f"rates/{verb}", "out": out, "err": err}
        for line in subprocess.run(read, **run).stdout.splitlines():
            record = json.loads(line)
            found[verb].setdefault(record["type"], []).append(record[record["type"]])
    return found


@pytest.fixture(scope="module")
def written(found):
    """Of the training."""
    return found["fit"]


@pytest.fixture(scope="module")
def scored(found):
    """Of its validation, with the CRF."""
    return found["validate"]


@pytest.fixture(scope="module")
def rows(written):
    return [row["item"] for row in written["history"]]


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_wandb_says_nothing_on_the_screen_and_how_to_send_the_run_is_one_line(verb, found):
    run = found[verb]
    assert "wandb" not in run["err"]
    (line,) = [line for line in run["out"].splitlines() if "wandb" in line]
    (kept,) = (run["folder"] / "wandb").glob("offline-run-*")
    assert shlex.split(line)[2:] == ["-m", "wandb", "sync", str(kept)]
    assert run["out"].splitlines().index(line) > 5  # below the table


def test_the_command_to_send_the_run_is_one_that_wandb_takes(written):
    (line,) = [line for line in written["out"].splitlines() if "wandb" in line]
    _, flag, package, *words = shlex.split(line)[1:]
    assert (flag, package) == ("-m", "wandb")
    run = CliRunner().invoke(wandb_commands, [*words, "--help"])
    assert run.exit_code == 0, run.output
    assert "sync" in run.output


def test_a_run_is_filed_so_that_a_dashboard_needs_no_clicking(written):
    run = written["run"][0]
    assert (run["project"], run["run_group"], run["job_type"]) == ("deeplab_lit", "rates", "fit")
    assert (run["display_name"], run["run_id"]) == ("fit", "rates-fit")
    assert run["entity"] == "us"
    assert run["tags"] == ["ablation", "rates"]


def test_the_configuration_is_nested(written):
    config = written["config"][-1]["update"]
    assert config["model"]["atrous_rates"] == [2, 4]
    assert config["data"]["class_path"] == "deeplab_lit.Shapes"


def test_the_configuration_has_all_that_was_typed(written, tiny_args):
    """Under the names of the options; those of a chosen class stand below its `init_args`."""
    config = written["config"][-1]["update"]
    config = config | {"data": config["data"]["init_args"]}
    for word in tiny_args("", **{"--runs_dir": None, "--data": None}):
        name, _, text = word.removeprefix("--").partition("=")
        value = config
        for key in name.split("."):
            value = value[key]
        assert value == yaml.safe_load(text), name


def test_a_run_is_summed_up_by_its_best_miou(written, rows):
    assert {"name": "val/miou", "options": {"defined": True}, "summary": {"max": True}} in written[
        "metric"
    ]
    best = max(row["val/miou"] for row in rows if "val/miou" in row)
    sums = [s["update"]["val/miou"] for s in written["summary"] if "val/miou" in s["update"]]
    assert sums[-1] == {"max": best}


def test_scores_rates_speed_and_memory_are_in_the_history(rows):
    names = {name for row in rows for name in row}
    assert names >= {
        "val/miou",
        "val/pixel_accuracy",
        "val/iou/background",
        "train/loss",
        "train/images_per_second",
        "train/resident_memory_gib",
        "lr/backbone",
        "lr/head.weight",
    }
    assert sum("val/miou" in row for row in rows) == 2


def test_the_history_has_every_number_of_metrics_csv(written, rows):
    """Which has eight digits of them."""
    by_step = {}
    for row in rows:
        by_step.setdefault(row["trainer/global_step"], {}).update(row)
    with (written["folder"] / "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == sorted(by_step)
    for line in lines:
        numbers = {name: float(text) for name, text in line.items() if text and name != "step"}
        there = by_step[int(line["step"])]
        assert numbers == pytest.approx({name: there[name] for name in numbers}, rel=1e-6)


def test_predictions_and_the_confusion_matrix_are_there(rows):
    pictures = next(row for row in rows if "val/images._type" in row)
    assert pictures["val/images._type"] == "images/separated"
    masks = [set(names) for names in pictures["val/images.all_masks"]]
    assert masks == [{"truth", "prediction"}] * 3
    table = next(row for row in rows if "val/confusion._type" in row)
    assert table["val/confusion._type"] == "table-file"
    assert (table["val/confusion.nrows"], table["val/confusion.ncols"]) == (49, 3)


def test_images_and_masks_are_kept_pixel_by_pixel(written, rows):
    """The last ones: the network's predictions at the end, as class indices."""
    (kept,) = (written["folder"] / "wandb").glob("offline-run-*/files")
    pictures = [row for row in rows if "val/images._type" in row][-1]
    segment = Segmenter(deeplab_lit.load(written["folder"] / "checkpoints/last.ckpt"))
    split, predicted = Shapes(train_size=8, val_size=3).split("val"), set()
    for i, id in enumerate(pictures["val/images.captions"]):
        image, truth = split.read(split.ids.index(id))
        with Image.open(kept / pictures["val/images.filenames"][i]) as picture:
            np.testing.assert_array_equal(picture, image)
        prediction = segment(torch.from_numpy(image))
        predicted |= set(np.unique(prediction))
        for name, mask in (("truth", truth), ("prediction", prediction)):
            with Image.open(kept / pictures["val/images.all_masks"][i][name]["path"]) as picture:
                np.testing.assert_array_equal(picture, mask)
    assert len(predicted) > 1


def test_the_table_of_images_is_kept_as_images_csv_has_it(scored):
    (path,) = scored["folder"].glob(f"wandb/offline-*/{TABLES}/val/image_scores_*")
    table = json.loads(path.read_text())
    with (scored["folder"] / "images.csv").open(newline="") as file:
        for line, row in zip(csv.DictReader(file), table["data"], strict=True):
            cells = dict(zip(table["columns"], row, strict=True))
            assert line.keys() <= cells.keys()
            assert {name: str(cells[name]) for name in line} == line
            assert cells.keys() >= {"iou/disc", "iou_crf/disc"}


def test_copies_of_tables_and_checkpoints_wait_outside_the_run_folder(written):
    """Where WANDB_DATA_DIR says, by absolute paths: README tells to sync on the same machine."""
    for artifact in written["artifact"]:
        for entry in artifact["manifest"]["contents"]:
            place = Path(entry["local_path"])
            assert place.is_relative_to(written["folder"].parents[1] / "artifacts/staging")
            assert place.stat().st_size == int(entry["size"])


def test_the_best_checkpoint_is_an_artifact_on_request(written):
    (artifact,) = [a for a in written["artifact"] if a["type"] == "model"]
    assert artifact["name"] == "rates-fit-best"
    assert [entry["path"] for entry in artifact["manifest"]["contents"]] == ["best.ckpt"]


def logged(records):
    """Metrics, media and tables by name, and the names of summaries."""
    rows = [row["item"] for row in records["history"]]
    names = {name.partition("._type")[0] for row in rows for name in row}
    updates = [item for summary in records["summary"] for item in summary["update"].items()]
    sums = {f"{name}.max" for name, value in updates if isinstance(value, dict) and "max" in value}
    return names, sums


@pytest.mark.parametrize("grid", ["atrous_rates", "crf"])
def test_every_panel_of_a_dashboard_finds_what_its_runs_log(grid, written, scored):
    sweep = read_sweep(ROOT / f"configs/ablations/shapes/{grid}.yaml")
    scores, trainings = build_dashboards(sweep, "us", "deeplab_lit").values()
    for view, records in ((scores, scored), (trainings, written)):
        names, sums = logged(records)
        assert records["run"][0]["job_type"] in str(view.runset_settings.filters)
        for panel in (panel for section in view.sections for panel in section.panels):
            if isinstance(panel, wr.LinePlot):
                assert [name for name in names if re.fullmatch(panel.metric_regex, name)], panel
            elif isinstance(panel, wr.BarPlot):
                assert sums & set(panel.metrics)
            elif isinstance(panel, wr.MediaBrowser):
                assert names >= set(panel.media_keys)
            else:
                key = panel.query["summaryTable"]["tableKey"]
                assert key in names
                (table, *_) = records["folder"].glob(f"wandb/*/files/media/table/{key}*.json")
                columns = json.loads(table.read_text())["columns"]
                assert columns == list(panel.chart_fields.values())


def test_after_the_crf_there_are_scores_a_summary_masks_and_the_crf_s_parameters(scored):
    names, sums = logged(scored)
    assert names >= {"val/miou", "val_crf/miou", "val_crf/iou/disc"}
    assert sums >= {"val/miou.max", "val_crf/miou.max"}
    rows = [row["item"] for row in scored["history"]]
    pictures = next(row for row in rows if "val/images._type" in row)
    masks = [set(names) for names in pictures["val/images.all_masks"]]
    assert masks == [{"truth", "prediction", "after_crf"}] * 3
    config = scored["config"][-1]["update"]
    assert (config["crf"]["bi_w"], config["model"]["atrous_rates"]) == (0, [2, 4])
