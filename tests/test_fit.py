import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from deeplab_lit import fit, validate
from deeplab_lit.atomic import lock
from deeplab_lit.cli.defaults import SHAPES
from deeplab_lit.data import Shapes
from deeplab_lit.data.shapes import draw_sample
from deeplab_lit.network import half_precision
from deeplab_lit.runs.record import RunRecord
from deeplab_lit.training.module import DeepLabModule


def make_folder(root, **splits):
    """Drawn images for Folder, as many as are said of each split."""
    for split, number in splits.items():
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for i in range(number):
            image, mask = draw_sample(0, i)
            Image.fromarray(image).save(root / f"images/{split}/{i}.png")
            Image.fromarray(mask).save(root / f"labels/{split}/{i}.png")
    (root / "classes.txt").write_text("\n".join(Shapes.classes))
    return root


def test_without_arguments_fit_trains_on_shapes_and_says_so(tmp_path, capsys):
    few = ["--trainer.max_steps=2", "--data.val_size=2", "--trainer.val_check_interval=2"]
    few += ["--model.collapse_share=1"]
    done = fit.main([*few, f"--runs_dir={tmp_path}", "--trainer.enable_progress_bar=false"])
    assert done.options.threads == 1
    assert "training on the built-in Shapes set" in capsys.readouterr().out
    assert type(done.datamodule.train).__name__ == "Shapes"
    assert done.options.model.lr == yaml.safe_load(SHAPES.read_text())["model"]["lr"]


def test_a_precision_that_is_slow_here_is_said_before_the_first_step_and_the_first_image(
    tmp_path, tiny_args, monkeypatch, capsys
):
    monkeypatch.setattr(half_precision, "time_ratio", lambda dtype, *, trains: 12.64)
    slow = "WARNING: bfloat16 is slower than float32 on this processor"
    options = {"--trainer.precision": "bf16-mixed", "--trainer.accelerator": "cpu"}
    done = fit.main(tiny_args(tmp_path, **options, **{"--trainer.max_steps": "2"}))
    assert capsys.readouterr().out.startswith(slow)
    checkpoint = done.folder / "checkpoints/best.ckpt"
    validate.main([f"--ckpt_path={checkpoint}", f"--runs_dir={tmp_path}"])  # as it was trained
    assert capsys.readouterr().out.startswith(slow)


def test_training_on_two_processes_writes_one_run(tmp_path, tiny_args):
    """The other spelling of `deeplab_lit.fit`: further processes start as the first was started."""
    options = {"--trainer.devices": "2", "--trainer.strategy": "ddp", "--run": "two"}
    command = [sys.executable, "-m", "deeplab_lit", "fit", *tiny_args(tmp_path, **options)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert [path.name for path in (tmp_path / "shapes").iterdir()] == ["two"]
    assert run.stdout.count("Best mIoU") == 1
    assert json.loads((tmp_path / "shapes/two/results.json").read_text())["processes"] == 2


def test_an_interrupted_first_run_goes_on_with_ckpt_path_last_alone(tmp_path, tiny_args):
    first = fit.main(tiny_args(tmp_path, **{"--trainer.max_steps": "2"}))
    more = fit.main(["--ckpt_path=last", f"--runs_dir={tmp_path}", "--trainer.max_steps=4"])
    assert more.folder == first.folder
    assert more.trainer.global_step == 4
    steps = [
        yaml.safe_load((first.folder / name).read_text())["trainer"]["max_steps"]
        for name in ("config_until_step_2.yaml", "config.yaml")
    ]
    assert steps == [2, 4]


def test_weights_for_the_classes_in_another_order_are_refused(trained, tmp_path, tiny_args, capsys):
    names = list(Shapes.classes)
    names[1], names[2] = names[2], names[1]
    starts = ({"--model.weights": str(trained)}, {"--ckpt_path": str(trained)})
    for start in starts:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Shapes, "classes", {name: Shapes.classes[name] for name in names})
            with pytest.raises(SystemExit) as stop:
                fit.main(tiny_args(tmp_path, **start))
        assert stop.value.code == 2
        assert f"data; 1: {names[2]} → {names[1]}, 2: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_named_run_is_repeated_from_its_config(tmp_path, tiny_args):
    first = fit.main(tiny_args(tmp_path, **{"--run": "one", "--trainer.max_steps": "2"}))
    again = fit.main([f"--config={first.folder / 'config.yaml'}"])
    assert again.folder != first.folder
    assert again.trainer.global_step == 2


def test_options_before_a_config_win_over_it(tmp_path, tiny_args):
    first = fit.main(tiny_args(tmp_path, **{"--trainer.max_steps": "2"}))
    args = ["--trainer.max_steps=1", "--run=x", f"--config={first.folder / 'config.yaml'}"]
    assert fit.main(args).trainer.global_step == 1


def test_training_on_validation_images_is_said(tmp_path, tiny_args, capsys):
    fit.main(tiny_args(tmp_path, **{"--data.train_split": "val", "--run": "x"}))
    assert "WARNING: 3 of the validation images are trained on too" in capsys.readouterr().out
    results = json.loads((tmp_path / "shapes/x/results.json").read_text())
    assert results["validation_images_trained_on"] == 3


def test_a_loss_that_is_no_number_stops_the_training(tmp_path, tiny_args, capsys):
    options = {"--model.lr": "1e9", "--trainer.log_every_n_steps": "1", "--run": "x"}
    with pytest.raises(SystemExit) as stop:
        fit.main(tiny_args(tmp_path, **options, **{"--trainer.max_steps": "40"}))
    assert stop.value.code == 2
    assert "a lower --model.lr helps" in capsys.readouterr().err


def test_without_other_loggers_there_still_is_a_csv_in_the_run_folder(tmp_path, tiny_args):
    done = fit.main(tiny_args(tmp_path, **{"--trainer.logger": "false"}))
    files = {path.name for path in done.folder.iterdir()}
    assert {"metrics.csv", "checkpoints"} <= files
    assert {path.name for path in (done.folder / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }


def test_a_moved_run_remembers_its_best(tmp_path, tiny_args):
    fit.main(tiny_args(tmp_path / "a", **{"--run": "x"}))
    (tmp_path / "a").rename(tmp_path / "b")
    options = {"--run": "x", "--ckpt_path": "last", "--trainer.max_steps": "6"}
    done = fit.main(tiny_args(tmp_path / "b", **options))
    checkpoints = done.trainer.checkpoint_callback
    assert checkpoints.best_model_path == str(tmp_path / "b/shapes/x/checkpoints/best.ckpt")
    assert float(checkpoints.best_model_score) == pytest.approx(done.record.best["miou"])


def test_a_run_killed_before_its_last_write_is_finished_by_going_on(tmp_path, tiny_args, capsys):
    args = tiny_args(tmp_path, **{"--run": "x"})
    if (child := os.fork()) == 0:  # nothing to import again
        try:
            RunRecord.on_fit_end = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
            fit.main(args)
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    file = tmp_path / "shapes/x/results.json"
    killed = json.loads(file.read_text())
    assert (killed["finished"], killed["steps"]) == (False, 4)
    for _ in range(2):  # the second time without the file that was left
        fit.main([*args, "--ckpt_path=last"])
        found = json.loads(file.read_text())
        assert found["finished"]
        assert found["best_checkpoint"] == str(tmp_path / "shapes/x/checkpoints/best.ckpt")
        kept = ("best", "final", "steps")
        assert {key: found[key] for key in kept} == {key: killed[key] for key in kept}
        assert f"Best mIoU {100 * killed['best']['miou']:.2f} %" in capsys.readouterr().out
        file.unlink()


@pytest.mark.parametrize("option", ["--eval.cache_dir=cache", "--eval.trimap=void"])
def test_options_of_validate_alone_are_refused(tmp_path, tiny_args, capsys, option):
    """A cache would score every validation on the probabilities of the first."""
    with pytest.raises(SystemExit) as stop:
        fit.main([*tiny_args(tmp_path), option])
    assert stop.value.code == 2
    assert f"{option.partition('=')[0]} is for validate" in capsys.readouterr().err
    assert not (tmp_path / "shapes").exists()


def test_a_training_that_has_collapsed_ends_with_a_sentence_and_keeps_what_it_has(
    tmp_path, tiny_args, capsys
):
    root = make_folder(tmp_path / "mine", train=4, val=2)
    (pseudo := tmp_path / "pseudo").mkdir()
    mask = np.zeros((161, 161), np.uint8)
    mask[0, 0] = 1  # masks of one class alone are refused before
    for i in range(4):
        Image.fromarray(mask).save(pseudo / f"{i}.png")
    options = {"--data": "Folder", "--data.root": str(root), "--data.mask_dir": str(pseudo)}
    options |= {"--data.train_size": None, "--data.val_size": None, "--run": "flat"}
    options |= {"--model.collapse_share": "0.99", "--trainer.max_steps": "24", "--model.lr": "0.05"}
    with pytest.raises(SystemExit) as stop, pytest.warns(UserWarning, match="goes on for now"):
        fit.main(tiny_args(tmp_path, **options))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    found = re.search(r"error: at step (\d+) of 24 .* are taken for background .* collapsed", error)
    folder, step = tmp_path / "folder/flat", int(found[1])
    assert 20 <= step < 24
    assert json.loads((folder / "results.json").read_text())["final"]["step"] == step
    assert (folder / "checkpoints/last.ckpt").is_file()


def test_an_unsaid_validation_interval_is_a_tenth_of_the_training_and_is_kept(tmp_path, tiny_args):
    unsaid = {"--trainer.val_check_interval": None, "--trainer.check_val_every_n_epoch": None}
    done = fit.main(tiny_args(tmp_path, **unsaid, **{"--trainer.max_steps": "14"}))
    assert done.record.final["step"] == 14
    saved = yaml.safe_load((done.folder / "config.yaml").read_text())
    assert saved["trainer"]["val_check_interval"] == 2


def test_a_training_may_be_stopped_early_by_its_validations_loss(tmp_path, tiny_args):
    stopping = {"--trainer.callbacks": "EarlyStopping", "--trainer.callbacks.monitor": "val/loss"}
    stopping |= {"--trainer.callbacks.patience": "1", "--trainer.callbacks.min_delta": "100"}
    done = fit.main(tiny_args(tmp_path, **stopping, **{"--trainer.max_steps": "8"}))
    assert done.trainer.global_step == 4  # the second validation is no better by 100
    final = json.loads((done.folder / "results.json").read_text())["final"]
    assert final["loss"] == pytest.approx(done.trainer.callback_metrics["val/loss"].item())


def test_a_logger_without_a_folder_writes_into_that_of_its_run(tmp_path, tiny_args, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = fit.main(tiny_args(tmp_path / "a", **{"--trainer.logger": "CSVLogger", "--run": "x"}))
    assert list(done.folder.glob("lightning_logs/version_0/metrics.csv"))
    again = fit.main([f"--config={done.folder / 'config.yaml'}", "--run=y"])
    assert list(again.folder.glob("lightning_logs/version_0/metrics.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_pseudo_labels_are_counted_before_training(tmp_path, tiny_args, capsys):
    root = make_folder(tmp_path / "mine", train=3, val=1)
    pseudo = tmp_path / "pseudo"
    pseudo.mkdir()
    for i, value in enumerate((0, 1, 255)):
        Image.fromarray(np.full((161, 161), value, np.uint8)).save(pseudo / f"{i}.png")
    options = {"--data": "Folder", "--data.root": str(root), "--data.mask_dir": str(pseudo)}
    options |= {"--data.train_size": None, "--data.val_size": None, "--trainer.max_steps": "1"}
    done = fit.main(tiny_args(tmp_path, **options))
    out = capsys.readouterr().out
    assert "3 images, 33.33% of their pixels void, 1 of them nothing but void" in out
    assert "Against the ground truth of 3 images: mIoU " in out
    assert done.record.about["pseudo_labels"]["data"]["against_ground_truth"]["images"] == 3
    rows = [line.split() for line in out.splitlines()]
    assert ["background", "50.000%", "1"] in rows
    assert ["square", "0.000%", "0"] in rows
    assert "WARNING: no mask of Folder train holds 5 of the 7 classes: square, " in out

    for path in pseudo.glob("*.png"):
        Image.fromarray(np.full((161, 161), 255, np.uint8)).save(path)
    with pytest.raises(SystemExit):
        fit.main(tiny_args(tmp_path, **options))
    assert "there is nothing to learn" in capsys.readouterr().err


def test_allowing_seen_splits_is_for_validate_and_is_not_kept(tmp_path, tiny_args, trained, capsys):
    with pytest.raises(SystemExit):
        fit.main([*tiny_args(tmp_path), "--allow_seen_split"])
    assert "--allow_seen_split is no option of fit: it is for validate" in capsys.readouterr().err
    args = [f"--ckpt_path={trained}", f"--runs_dir={tmp_path}", "--data.val_split=train"]
    done = validate.main([*args, "--allow_seen_split"])
    assert yaml.safe_load((done.folder / "config.yaml").read_text())["allow_seen_split"] is False


@pytest.mark.parametrize(
    "options",
    [
        {"--checkpoint.save_top_k": "3"},
        {"--checkpoint.dirpath": "elsewhere"},
        {"--trainer.enable_checkpointing": "false"},
        {"--trainer.barebones": "true"},
        {"--trainer.limit_train_batches": "0"},
        {"--run": "../../x"},
        {"--experiment": "/tmp/x"},
    ],
)
def test_what_would_leave_a_run_without_its_files_is_refused(options, tmp_path, tiny_args, capsys):
    with pytest.raises(SystemExit) as stop:
        fit.main(tiny_args(tmp_path, **options))
    assert stop.value.code == 2
    (name,) = options
    assert f"error: {name} " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def step(path):
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.parametrize(
    "options",
    [
        {"--checkpoint.monitor": "val/fw_iou"},
        {"--checkpoint.mode": "min"},
        {
            "--trainer.callbacks+": "ModelCheckpoint",
            "--trainer.callbacks.monitor": "val/miou",
            "--trainer.callbacks.save_top_k": "-1",
            "--trainer.callbacks.filename": "{step}",
        },
        {"--trainer.check_val_every_n_epoch": "1", "--trainer.val_check_interval": "1.0"},
    ],
)
def test_the_best_checkpoint_is_what_the_results_name(options, tmp_path, tiny_args):
    done = fit.main(tiny_args(tmp_path, **{"--trainer.max_steps": "8"}, **options))
    results = json.loads((done.folder / "results.json").read_text())
    assert results["best_checkpoint"] == str(done.folder / "checkpoints/best.ckpt")
    assert step(done.folder / "checkpoints/best.ckpt") == results["best"]["step"]
    kept = {path.name for path in (done.folder / "checkpoints").iterdir()}
    more = {f"step={number}.ckpt" for number in (2, 4, 6, 8)} if len(options) > 2 else set()
    assert kept == {"best.ckpt", "last.ckpt"} | more


def test_one_command_begins_a_run_and_goes_on_with_it(tmp_path, tiny_args, capsys):
    args = tiny_args(tmp_path, **{"--run": "a[1]", "--ckpt_path": "last"})
    first = fit.main(args)
    assert "no checkpoint to go on from: this run begins at step 0" in capsys.readouterr().out
    second = fit.main([*args, "--trainer.max_steps=6"])
    assert "begins at step 0" not in capsys.readouterr().out
    assert second.folder == first.folder == tmp_path / "shapes/a[1]"
    assert second.trainer.global_step == 6


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path, tiny_args):
    whole = fit.main(tiny_args(tmp_path, **{"--run": "whole"})).folder
    killed = tmp_path / "shapes/x"
    (killed / "checkpoints/.part-abc").mkdir(parents=True)
    (killed / "config.yaml").write_text("model:\n  lr: 7\n")
    (killed / "metrics.csv").write_text("step,train/loss\n0,7\n")
    (killed / "results.json").write_text('{"finished": false}')
    done = fit.main(tiny_args(tmp_path, **{"--run": "x", "--ckpt_path": "last"}))
    assert done.folder == killed
    names = [sorted(path.name for path in folder.rglob("*")) for folder in (whole, killed)]
    assert names[0] == names[1]
    assert "7" not in (killed / "config.yaml").read_text().split()
    assert (killed / "metrics.csv").read_text().splitlines()[1].split(",")[0] == "1"


def test_what_is_begun_anew_is_what_its_config_says(tmp_path, tiny_args):
    first = fit.main(tiny_args(tmp_path, **{"--run": "x", "--trainer.max_steps": "1"}))
    shutil.rmtree(first.folder / "checkpoints")
    (first.folder / "results.json").unlink(missing_ok=True)
    again = fit.main([f"--runs_dir={tmp_path}", "--run=x", "--ckpt_path=last"])
    assert again.folder == first.folder
    assert again.trainer.global_step == 1


def test_where_the_last_checkpoint_is_damaged_the_best_is_gone_on_with(tmp_path, tiny_args, capsys):
    args = tiny_args(tmp_path, **{"--run": "x", "--ckpt_path": "last"})
    checkpoints = fit.main(args).folder / "checkpoints"
    best = step(checkpoints / "best.ckpt")
    for damage in (lambda path: path.write_bytes(path.read_bytes()[:5000]), Path.unlink):
        damage(checkpoints / "last.ckpt")
        done = fit.main([*args, "--trainer.max_steps=6"])
        assert done.trainer.global_step == step(checkpoints / "last.ckpt") == 6
        assert f"checkpoints/best.ckpt (step {best})" in capsys.readouterr().out
    for name in ("best.ckpt", "last.ckpt"):
        (checkpoints / name).write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        fit.main(args)
    assert stop.value.code == 2
    assert "best.ckpt" in capsys.readouterr().err


def test_two_processes_do_not_go_on_with_one_run(tmp_path, tiny_args, capsys):
    args = tiny_args(tmp_path, **{"--run": "x", "--ckpt_path": "last"})
    folder = fit.main(args).folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with (folder / ".lock").open("a") as file:
        lock(file)  # another open file: as another process has it
        with pytest.raises(SystemExit) as stop:
            fit.main([*args, "--trainer.max_steps=6"])
    assert stop.value.code == 2
    assert "another process is training in this folder" in capsys.readouterr().err
    (folder / ".lock").unlink()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_best_checkpoint_that_is_gone_is_not_named(tmp_path, tiny_args, capsys):
    options = {"--run": "a", "--ckpt_path": "last", "--model.lr": "0", "--trainer.max_steps": "2"}
    options["--trainer.val_check_interval"] = "1"
    done = fit.main(tiny_args(tmp_path, **options))
    best = done.folder / "checkpoints/best.ckpt"
    assert torch.load(best, weights_only=True)["global_step"] == 1  # the last scores the same
    best.unlink()
    capsys.readouterr()
    fit.main(tiny_args(tmp_path, **options))
    shown = capsys.readouterr().out
    assert f"{best} is not there any more" in shown
    assert "Next" not in shown


class Watched(DeepLabModule):
    """A training that logs a metric of its own."""


def test_a_metric_of_a_training_of_ones_own_may_be_watched(tmp_path, tiny_args):
    args = tiny_args(tmp_path, **{"--checkpoint.monitor": "val/mine"})
    with ExitStack() as held:
        fit.check(*fit.build(args, Watched, held))
        with pytest.raises(MisconfigurationException, match="val/mine, which is not logged"):
            fit.check(*fit.build(args, DeepLabModule, held))


def test_a_list_of_images_is_in_the_checkpoint_and_holds_for_the_rest_of_a_training(
    tmp_path, tiny_args, capsys
):
    listed = tmp_path / "labeled.txt"
    listed.write_text("1\n2\n")
    changes = {"--data.ids": listed, "--run": "one", "--trainer.max_steps": "2"}
    run = fit.main(tiny_args(tmp_path / "runs", **changes))
    checkpoint = torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)
    digest = hashlib.sha256(b"1\n2\n").hexdigest()
    entry = f"Shapes:train [ids {tmp_path.name}/labeled.txt, SHA-256 {digest}]"
    assert checkpoint["provenance"]["trained_on"] == [entry]
    assert f"2 training images (train, ids {tmp_path.name}/labeled.txt)" in capsys.readouterr().out
    listed.write_text("1\n3\n")
    changes |= {"--ckpt_path": "last", "--trainer.max_steps": "4"}
    with pytest.raises(SystemExit) as stop:
        fit.main(tiny_args(tmp_path / "runs", **changes))
    assert stop.value.code == 2
    assert "labeled.txt is not the list that" in capsys.readouterr().err
