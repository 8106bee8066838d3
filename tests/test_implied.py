from pathlib import Path

import pytest

from deeplab_lit.implied import SHAPES, configs_first, implied_config, with_checkpoint_named
from deeplab_lit.training.run_folder import RunFolderError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of an experiment, below the default folder of runs."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/mine/one")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/last.ckpt").touch()
    (folder / "config.yaml").touch()
    return folder


def test_a_training_that_names_nothing_is_shapes(run):
    assert implied_config("fit", []) == SHAPES
    assert implied_config("fit", ["--trainer.max_steps=3"]) == SHAPES
    assert SHAPES.is_file()


@pytest.mark.parametrize("args", [["--config=x"], ["--data", "VOC"], ["-c", "x"], ["--help"]])
def test_who_names_data_or_a_config_gets_no_other(run, args):
    assert implied_config("fit", args) is None
    assert implied_config("validate", [*args, "--ckpt_path=runs/mine/one/checkpoints/a"]) is None


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_a_checkpoint_brings_the_config_of_its_run(run, verb):
    path = str(run / "checkpoints/best.ckpt")
    assert implied_config(verb, ["--ckpt_path", path]) == run / "config.yaml"
    assert implied_config(verb, [f"--ckpt_path={path}"]) == run / "config.yaml"


def test_last_brings_the_config_of_the_newest_run(run):
    args = ["--ckpt_path=last", "--experiment=mine"]
    assert implied_config("fit", args) == run / "config.yaml"
    assert implied_config("fit", [*args, "--run=one"]) == run / "config.yaml"
    assert implied_config("fit", ["--ckpt_path=last"]) == run / "config.yaml"
    with pytest.raises(RunFolderError, match="shapes"):
        implied_config("fit", ["--ckpt_path=last", "--experiment=shapes"])


@pytest.mark.parametrize("said", [["--ckpt_path", "last"], ["--ckpt_path=last"]])
def test_the_checkpoint_and_the_config_of_last_are_of_one_run(run, said):
    argv = with_checkpoint_named(["--crf", *said, "--data.batch_size", "2"])
    path = run / "checkpoints/last.ckpt"
    assert argv == ["--crf", "--data.batch_size", "2", f"--ckpt_path={path}"]
    assert implied_config("validate", argv) == run / "config.yaml"
    assert with_checkpoint_named(["--ckpt_path=./last", "--x"]) == ["--ckpt_path=./last", "--x"]
    with pytest.raises(RunFolderError, match="elsewhere"):
        with_checkpoint_named([*said, "--runs_dir=elsewhere"])


def test_options_win_over_configs_wherever_they_stand():
    argv = ["--a=1", "--config", "x.yaml", "--b", "2", "-c", "y.yaml", "--config=z.yaml", "--c"]
    front = ["--config", "x.yaml", "-c", "y.yaml", "--config=z.yaml"]
    assert configs_first(argv) == [*front, "--a=1", "--b", "2", "--c"]


def test_without_a_checkpoint_there_is_nothing_to_validate(run):
    assert implied_config("validate", []) is None
    assert implied_config("validate", ["--ckpt_path=elsewhere.ckpt"]) is None


def test_a_config_without_data_leaves_the_checkpoints_run_in_place(run):
    """As `tune_crf` writes it."""
    Path("best.yaml").write_text("crf:\n  bi_w: 5\n")
    Path("mine.yaml").write_text("data: VOC\n")
    checkpoint = f"--ckpt_path={run / 'checkpoints/best.ckpt'}"
    for config in (["--config=best.yaml"], ["--config", "best.yaml"]):
        assert implied_config("validate", [checkpoint, *config]) == run / "config.yaml"
        assert implied_config("fit", config) is None
    assert implied_config("validate", [checkpoint, "--config=mine.yaml"]) is None
