import json
import subprocess
import sys

import pytest
import yaml

from deeplab_lit.cli import main
from deeplab_lit.implied import SHAPES


def test_without_arguments_fit_trains_on_shapes_and_says_so(tmp_path, capsys):
    few = ["--trainer.max_steps=2", "--data.val_size=2", "--trainer.val_check_interval=2"]
    done = main("fit", [*few, f"--runs_dir={tmp_path}", "--trainer.enable_progress_bar=false"])
    assert "training on the built-in Shapes set" in capsys.readouterr().out
    assert type(done.datamodule).__name__ == "Shapes"
    assert done.config.fit.model.lr == yaml.safe_load(SHAPES.read_text())["model"]["lr"]


def test_training_on_two_processes_writes_one_run(tmp_path, tiny_args):
    options = {"--trainer.devices": "2", "--trainer.strategy": "ddp", "--run": "two"}
    command = [sys.executable, "-m", "deeplab_lit.fit", *tiny_args(tmp_path, **options)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert [path.name for path in (tmp_path / "shapes").iterdir()] == ["two"]
    assert run.stdout.count("Best mIoU") == 1


def test_an_interrupted_first_run_goes_on_with_ckpt_path_last_alone(tmp_path, tiny_args):
    first = main("fit", tiny_args(tmp_path, **{"--trainer.max_steps": "2"}))
    more = main("fit", ["--ckpt_path=last", f"--runs_dir={tmp_path}", "--trainer.max_steps=4"])
    assert more.folder == first.folder
    assert more.trainer.global_step == 4
    assert (first.folder / "config_from_step_2.yaml").is_file()


def test_a_named_run_is_repeated_from_its_config(tmp_path, tiny_args):
    first = main("fit", tiny_args(tmp_path, **{"--run": "one", "--trainer.max_steps": "2"}))
    again = main("fit", [f"--config={first.folder / 'config.yaml'}"])
    assert again.folder != first.folder
    assert again.trainer.global_step == 2


def test_options_before_a_config_win_over_it(tmp_path, tiny_args):
    first = main("fit", tiny_args(tmp_path, **{"--trainer.max_steps": "2"}))
    args = ["--trainer.max_steps=1", "--run=x", f"--config={first.folder / 'config.yaml'}"]
    assert main("fit", args).trainer.global_step == 1


def test_training_on_validation_images_is_said(tmp_path, tiny_args, capsys):
    main("fit", tiny_args(tmp_path, **{"--data.train_split": "val", "--run": "x"}))
    assert "WARNING: 3 of the validation images are trained on too" in capsys.readouterr().out
    results = json.loads((tmp_path / "shapes/x/results.json").read_text())
    assert results["validation_images_trained_on"] == 3


def test_a_loss_that_is_no_number_stops_the_training(tmp_path, tiny_args, capsys):
    options = {"--model.lr": "1e9", "--trainer.log_every_n_steps": "1", "--run": "x"}
    with pytest.raises(SystemExit) as stop:
        main("fit", tiny_args(tmp_path, **options, **{"--trainer.max_steps": "40"}))
    assert stop.value.code == 2
    assert "a lower --model.lr helps" in capsys.readouterr().err


def test_without_other_loggers_there_still_is_a_csv_in_the_run_folder(tmp_path, tiny_args):
    done = main("fit", tiny_args(tmp_path, **{"--trainer.logger": "false"}))
    files = {path.name for path in done.folder.iterdir()}
    assert {"metrics.csv", "checkpoints"} <= files
    assert {path.name for path in (done.folder / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }


def test_a_moved_run_remembers_its_best(tmp_path, tiny_args):
    main("fit", tiny_args(tmp_path / "a", **{"--run": "x"}))
    (tmp_path / "a").rename(tmp_path / "b")
    options = {"--run": "x", "--ckpt_path": "last", "--trainer.max_steps": "6"}
    done = main("fit", tiny_args(tmp_path / "b", **options))
    checkpoints = done.trainer.checkpoint_callback
    assert checkpoints.best_model_path == str(tmp_path / "b/shapes/x/checkpoints/best.ckpt")
    assert float(checkpoints.best_model_score) == pytest.approx(done.record.best["miou"])


def test_the_other_spelling_trains_on_two_processes_too(tmp_path, tiny_args):
    options = {"--trainer.devices": "2", "--trainer.strategy": "ddp", "--run": "two"}
    command = [sys.executable, "-m", "deeplab_lit", "fit", *tiny_args(tmp_path, **options)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "shapes/two/results.json").read_text())["processes"] == 2


@pytest.mark.parametrize("option", ["--eval.cache_dir=cache", "--eval.band=void"])
def test_options_of_validate_alone_are_refused(tmp_path, tiny_args, capsys, option):
    """A cache would score every validation on the probabilities of the first."""
    with pytest.raises(SystemExit) as stop:
        main("fit", [*tiny_args(tmp_path), option])
    assert stop.value.code == 2
    assert f"{option.partition('=')[0]} is for validate" in capsys.readouterr().err
    assert not (tmp_path / "shapes").exists()
