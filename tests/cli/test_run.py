import csv
import json
import logging
import os
import signal
import sys
import warnings

import cv2
import numpy as np
import pytest
import torch
import yaml
from lightning.fabric.utilities import distributed
from PIL import Image

from deeplab_lit import fit, validate
from deeplab_lit.cli import callbacks as equipment
from deeplab_lit.cli import run as shared
from deeplab_lit.cli.run import build_parser, parse_run
from deeplab_lit.errors import UserError
from deeplab_lit.network.head import ASPP
from deeplab_lit.runs import folder as run_folder


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key != "train/images_per_second"}
            for row in csv.DictReader(file)
        ]


def make_folder(root, *, value=1, size=(40, 36), images=2, classes=("sky", "road", "void")):
    """A data set for Folder with splits train and val; masks hold 0, `value` and 2 (void)."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(images):
            pixels = rng.integers(256, size=(*size, 3), dtype=np.uint8)
            mask = rng.choice(np.array([0, value, 2], np.uint8), size=size)
            cv2.imwrite(str(root / f"images/{split}/{i}.jpg"), pixels)
            Image.fromarray(mask).save(root / f"labels/{split}/{i}.png")
    (root / "classes.txt").write_text("\n".join(classes))
    return root


def test_fit_ends_with_table_checkpoint_and_next_command(tmp_path, tiny_args, capsys):
    done = fit.main(tiny_args(tmp_path))
    out = capsys.readouterr().out
    best = done.trainer.checkpoint_callback.best_model_path
    assert "Best mIoU" in out
    assert all(name in out for name in done.datamodule.classes)
    assert f"Checkpoint  {best}" in out
    assert f"deeplab_lit.validate --ckpt_path {best}" in out
    files = {path.name for path in done.folder.iterdir()}
    assert files == {
        "config.yaml",
        "checkpoints",
        "metrics.csv",
        "predictions.png",
        "report.html",
        "results.json",
    }
    results = json.loads((done.folder / "results.json").read_text())
    assert results["finished"]
    assert results["steps"] == 4
    scores = [float(row["val/miou"]) for row in rows(done.folder) if row["val/miou"]]
    assert len(scores) == 2
    assert results["best"]["miou"] == pytest.approx(max(scores))
    assert results["final"]["miou"] == pytest.approx(scores[-1])


@pytest.mark.parametrize("rates", [[1], [3, 5], [6, 12, 18, 24], [2, 4, 6, 8, 10]])
def test_rates_on_the_command_line_are_the_dilations_of_the_convolutions(
    tmp_path, tiny_args, build_fit, rates
):
    head = build_fit(tiny_args(tmp_path, **{"--model.atrous_rates": str(rates)})).module.net.head
    assert isinstance(head, ASPP)
    assert [conv.dilation for conv in head.branches] == [(rate, rate) for rate in rates]
    assert not any(tmp_path.iterdir())


def test_a_training_computes_on_as_many_threads_as_it_is_told(
    tmp_path, tiny_args, build_fit, monkeypatch
):
    told = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    build_fit(tiny_args(tmp_path))
    assert told == []  # OMP_NUM_THREADS, or torch, decides
    build_fit(tiny_args(tmp_path, **{"--threads": "3"}))
    assert told == [3]
    monkeypatch.setattr(distributed, "_suggested_max_num_threads", lambda processes: 5)
    distributed._set_num_threads_if_needed(2)  # by Lightning, where it starts several processes
    assert told == [3]


def test_the_saved_config_reproduces_the_run(tmp_path, tiny_args):
    first = fit.main(tiny_args(tmp_path, **{"--run": "a"}))
    fit.main([f"--config={first.folder / 'config.yaml'}", "--run=b"])
    one, two = (weights(tmp_path / f"shapes/{run}/checkpoints/last.ckpt") for run in "ab")
    assert all(torch.equal(one[key], two[key]) for key in one)


# two steps an epoch and a validation every two: 4 is an epoch's end, 3 and 5 its middle
STOPPED = {
    "--loader.batch_size": "2",
    "--trainer.accumulate_grad_batches": "2",
    "--trainer.val_check_interval": "4",
    "--trainer.max_steps": "6",
    "--trainer.log_every_n_steps": "1",
}


class Crash(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_args):
    """The folder of a run that was not stopped."""
    return fit.main(tiny_args(tmp_path_factory.mktemp("whole"), **STOPPED)).folder


@pytest.mark.parametrize("how", ["signal", "crash"])
@pytest.mark.parametrize("at", [3, 4, 5])
def test_a_run_that_was_stopped_and_resumed_ends_like_one_that_was_not(
    whole, tmp_path, tiny_args, monkeypatch, how, at
):
    class Stopped(equipment.SaveOnSignal):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == at != self.steps_done:
                if how == "crash":
                    raise Crash
                os.kill(os.getpid(), signal.SIGTERM)
            super().on_train_batch_end(trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(equipment, "SaveOnSignal", Stopped)
        with pytest.raises(Crash if how == "crash" else SystemExit) as stop:
            fit.main(tiny_args(tmp_path, **STOPPED, **{"--run": "parts"}))
        if how == "signal":
            assert stop.value.code == 128 + signal.SIGTERM
    fit.main(tiny_args(tmp_path, **STOPPED, **{"--run": "parts", "--ckpt_path": "last"}))

    folders = [whole, tmp_path / "shapes/parts"]
    one, two = (weights(folder / "checkpoints/last.ckpt") for folder in folders)
    assert all(torch.equal(one[key], two[key]) for key in one)
    losses, rates = (
        [[row[column] for row in rows(folder)] for folder in folders]
        for column in ("train/loss", "lr/backbone")
    )
    assert losses[0] == losses[1]
    assert rates[0] == rates[1]
    finals = [json.loads((f / "results.json").read_text())["final"] for f in folders]
    assert finals[0] == finals[1]


BAD_FOLDERS = {
    "a mask value out of range": (
        lambda root: make_folder(root, value=9),
        ["mask value 9", "labels/train/", "neither one of the 2 classes nor void"],
    ),
    "an empty split": (
        lambda root: [p.unlink() for p in (make_folder(root) / "images/val").iterdir()],
        ["images/val", "no images there"],
    ),
    "a missing mask": (
        lambda root: (make_folder(root) / "labels/train/0.png").unlink(),
        ["1 of 4 files are missing", "labels/train/0.png"],
    ),
    "a truncated JPEG": (
        lambda root: (make_folder(root) / "images/train/1.jpg").write_bytes(
            (root / "images/train/1.jpg").read_bytes()[:300]
        ),
        ["images/train/1.jpg", "cannot be read"],
    ),
    "a mask of another size": (
        lambda root: Image.new("L", (5, 5)).save(make_folder(root) / "labels/train/0.png"),
        ["5×5", "same size"],
    ),
    "no classes.txt": (
        lambda root: (make_folder(root) / "classes.txt").unlink(),
        ["classes.txt", "does not exist"],
    ),
}


def refused(capsys, main, args, runs):
    """The sentence with which a command line is refused; nothing may have been written."""
    with pytest.raises(SystemExit) as stop:
        main(args)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert "Traceback" not in error
    assert not runs.exists() or not any(runs.rglob("*"))
    return error


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_data_is_refused_before_the_first_step(tmp_path, tiny_args, capsys, case):
    make, words = BAD_FOLDERS[case]
    root, runs = tmp_path / "data", tmp_path / "runs"
    make(root)
    args = tiny_args(runs, **{"--data.train_size": None, "--data.val_size": None, "--data": None})
    args = ["--data=Folder", f"--data.root={root}", "--data.void=2", *args]
    error = refused(capsys, fit.main, args, runs)
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--model.atrous_rates": "[6,-1]"}, ["positive integers", "[6, -1]"]),
        ({"--model.atrous_rates": "[2.5]"}, ["atrous_rates", "2.5"]),
        ({"--model.atrous_rates": "[]"}, ["positive integers"]),
        ({"--model.output_stride": "7"}, ["output_stride", "7"]),
        ({"--model.lrr": "3"}, ["lrr"]),
        ({"--nonsense": "3"}, ["--nonsense"]),
        ({"--config": "nowhere.yaml"}, ["nowhere.yaml"]),
        (
            {"--model.weights": "nowhere.pth"},
            ["--model.weights nowhere.pth: no such file", '"imagenet", or'],
        ),
        ({"--model.norm": "frozen"}, ["--model.norm batch"]),
        ({"--ckpt_path": "nowhere.ckpt"}, ["nowhere.ckpt", "no such file"]),
        ({"--ckpt_path": "last"}, ["last", "last.ckpt"]),
        (
            {"--trainer.max_steps": "-1", "--trainer.max_epochs": "-1"},
            ["when training ends", "--trainer.max_steps"],
        ),
        ({"--loader.crop_size": "5"}, ["crop_size", "33"]),
        (
            {"--model.compile": "true", "--model.gradient_checkpointing": "true"},
            ["compile", "gradient_checkpointing"],
        ),
        ({"--model.lr": "-1"}, ["lr is out of range: -1"]),
        ({"--model.poly_power": "-1"}, ["poly_power is out of range"]),
        ({"--model.step_size": "0", "--model.lr_policy": "step"}, ["step_size is out of range: 0"]),
        ({"--model.step_factor": "0.5"}, ["step_factor is 0.5", "--model.lr_policy step"]),
        ({"--model.lr_policy": "cosine"}, ["lr_policy", "poly", "step", "cosine"]),
        ({"--model.head": "conv1x1"}, ["conv1x1 takes no atrous rates", "--model.atrous_rates"]),
        ({"--loader.num_workers": "-1"}, ["num_workers", "-1"]),
        ({"--model.lr": ".inf"}, ["lr is out of range: inf"]),
        ({"--model.lr": "1e300"}, ["lr 1e+300", "float32"]),
        ({"--trainer.max_steps": "0"}, ["--trainer.max_steps"]),
        ({"--trainer.accumulate_grad_batches": "0"}, ["--trainer.accumulate_grad_batches is 0"]),
        ({"--trainer.devices": "-3"}, ["--trainer.devices is -3"]),
        ({"--seed_everything": "-1"}, ["--seed_everything is -1"]),
        ({"--optimizer": "Adam"}, ["--optimizer", "--model.lr_policy"]),
        ({"--checkpoint.monitor": "nope"}, ["watches nope", "val/loss", "val/miou"]),
        (
            {"--trainer.callbacks": "EarlyStopping", "--trainer.callbacks.monitor": "nope"},
            ["EarlyStopping watches nope", "val/loss", "val/iou/wire"],
        ),
        ({"--trainer.max_steps": None}, ["--trainer.max_steps"]),
    ],
)
def test_bad_options_are_refused_before_the_first_step(tmp_path, tiny_args, capsys, changes, words):
    runs = tmp_path / "runs"
    error = refused(capsys, fit.main, tiny_args(runs, **changes), runs)
    assert all(word in error for word in words), error


def test_an_unknown_key_in_a_config_is_refused(tmp_path, tiny_args, capsys):
    config, runs = tmp_path / "c.yaml", tmp_path / "runs"
    config.write_text("model:\n  atrous_rate: [6]\n")
    error = refused(capsys, fit.main, [f"--config={config}", *tiny_args(runs)], runs)
    assert "model.atrous_rate" in error


def test_a_checkpoint_of_other_classes_is_refused(trained, tmp_path, capsys):
    make_folder(tmp_path / "data")
    args = [f"--ckpt_path={trained}", "--data=Folder", f"--data.root={tmp_path / 'data'}"]
    runs = tmp_path / "runs"
    error = refused(capsys, validate.main, [*args, "--data.void=2", f"--runs_dir={runs}"], runs)
    assert "has 7 classes, but Folder has 2" in error
    assert "0: background → sky" in error


def test_a_flag_that_the_checkpoint_would_override_is_refused(trained, tmp_path, capsys):
    args = [f"--ckpt_path={trained}", "--model.atrous_rates=[6,12]", f"--runs_dir={tmp_path}"]
    error = refused(capsys, fit.main, args, tmp_path / "none")
    assert "--model.atrous_rates is" in error
    assert "trained with" in error


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a zip", b"<html>not found</html>"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, tiny_args, capsys, content):
    path, runs = tmp_path / "x.ckpt", tmp_path / "runs"
    path.write_bytes(content)
    error = refused(capsys, fit.main, tiny_args(runs, **{"--ckpt_path": str(path)}), runs)
    assert str(path) in error


def test_a_truncated_checkpoint_is_refused(trained, tmp_path, tiny_args, capsys):
    path, runs = tmp_path / "half.ckpt", tmp_path / "runs"
    path.write_bytes(trained.read_bytes()[:5000])
    error = refused(capsys, fit.main, tiny_args(runs, **{"--ckpt_path": str(path)}), runs)
    assert "truncated" in error


def test_an_unwritable_runs_folder_is_refused(tmp_path, tiny_args, capsys):
    (tmp_path / "file").touch()
    error = refused(capsys, fit.main, tiny_args(tmp_path / "file"), tmp_path / "none")
    assert "cannot be written" in error
    assert "--runs_dir" in error


def test_a_full_disk_is_refused_before_the_first_step(tmp_path, tiny_args, capsys, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda path: usage)
    runs = tmp_path / "runs"
    with pytest.raises(SystemExit) as stop:
        fit.main(tiny_args(runs))
    assert stop.value.code == 2
    assert "make room" in capsys.readouterr().err
    assert not [path for path in runs.rglob("*") if path.is_file()]


def test_a_run_is_never_overwritten(trained, tiny_args, capsys):
    runs = trained.parents[3]
    before = (runs / "shapes/one/results.json").read_bytes()
    with pytest.raises(SystemExit) as stop:
        fit.main(tiny_args(runs, **{"--run": "one"}))
    assert stop.value.code == 2
    assert "exists already" in capsys.readouterr().err
    assert (runs / "shapes/one/results.json").read_bytes() == before


def test_weights_of_a_checkpoint_start_a_new_training(trained, tmp_path, tiny_args):
    options = {"--model.weights": str(trained), "--model.lr": "0", "--trainer.max_steps": "2"}
    done = fit.main(tiny_args(tmp_path, **options))
    start = weights(trained)
    learned = dict(done.module.named_parameters())
    assert all(torch.equal(learned[key], start[key]) for key in learned)


def test_frozen_normalization_stays_as_it_was(trained, tmp_path, tiny_args):
    options = {"--model.weights": str(trained), "--model.norm": "frozen"}
    done = fit.main(tiny_args(tmp_path, **options))
    start, end = weights(trained), weights(done.folder / "checkpoints/last.ckpt")
    frozen = [key for key in end if ".bn" in key]
    assert frozen
    assert all(torch.equal(start[key], end[key]) for key in frozen)
    assert any(not torch.equal(start[key], end[key]) for key in end if "conv" in key)


def test_the_defaults_stand_in_the_printed_configuration(capsys):
    with pytest.raises(SystemExit) as stop:
        fit.main(["--data=Shapes", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["runs_dir"] == "runs"
    assert printed["experiment"] is printed["run"] is printed["crf"] is None
    assert printed["checkpoint"]["monitor"] == "val/miou"
    assert printed["eval"]["scales"] is None


def test_a_configuration_names_the_file_of_the_crf_and_of_a_section_beside_it(tmp_path):
    (tmp_path / "crf.yaml").write_text("bi_w: 5\n")
    (tmp_path / "model.yaml").write_text("lr: 0.5\n")
    (tmp_path / "a.yaml").write_text("data: Shapes\nmodel: model.yaml\nrun: '1e3'\n")
    parser = build_parser("fit", "", "")
    options = parse_run(parser, "fit", [f"--config={tmp_path / 'a.yaml'}"], None)
    assert (options.model.lr, options.run) == (0.5, "1e3")
    (tmp_path / "b.yaml").write_text(f"data: Shapes\ncrf: {tmp_path / 'crf.yaml'}\n")
    options = parse_run(parser, "fit", [f"--config={tmp_path / 'b.yaml'}"], None)
    assert options.crf.bi_w == 5


@pytest.mark.parametrize("command", [fit.main, validate.main])
def test_a_notebooks_process_is_afterwards_as_it_was(command, tiny_args, tmp_path, monkeypatch):
    """Here the run is refused once its process is set up, by a class that is made after that."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "level", logging.INFO)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    set_up, seen = shared.set_up_process, []

    def watched(options):
        set_up(options)
        torch.set_num_threads(3)
        torch.use_deterministic_algorithms(True)
        seen.append(os.environ["OMP_NUM_THREADS"])
        raise UserError("refused")

    monkeypatch.setattr(sys.modules[command.__module__], "set_up_process", watched)
    options = ["--masks", str(tmp_path), "--data", "Shapes", "--runs_dir", str(tmp_path)]
    if command is fit.main:
        options = tiny_args(tmp_path, **{"--threads": "1"})
    with warnings.catch_warnings():
        filters = list(warnings.filters)
        with pytest.raises(SystemExit):
            command(options)
        assert warnings.filters == filters
    assert seen == ["1" if command is fit.main else "2"]
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, precision)
    assert not torch.are_deterministic_algorithms_enabled()
    assert logging.getLogger("lightning.pytorch").level == logging.INFO
