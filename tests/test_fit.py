import subprocess
import sys

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
