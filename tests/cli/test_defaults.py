import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from deeplab_lit import fit, tune_crf, validate
from deeplab_lit.cli.defaults import (
    SHAPES,
    implied_config,
    with_checkpoint_named,
)
from deeplab_lit.cli.parser import configs_first, value_of
from deeplab_lit.cli.run import typed_classes
from deeplab_lit.runs.folder import RunFolderError


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


@pytest.mark.parametrize("args", [["--config=x"], ["--data", "VOC"], ["--help"]])
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
    argv = with_checkpoint_named(["--crf", *said, "--loader.batch_size", "2"])
    path = run / "checkpoints/last.ckpt"
    assert argv == ["--crf", "--loader.batch_size", "2", f"--ckpt_path={path}"]
    assert implied_config("validate", argv) == run / "config.yaml"
    assert with_checkpoint_named(["--ckpt_path=./last", "--x"]) == ["--ckpt_path=./last", "--x"]
    with pytest.raises(RunFolderError, match="elsewhere"):
        with_checkpoint_named([*said, "--runs_dir=elsewhere"])


def test_options_win_over_configs_wherever_they_stand():
    argv = ["--a=1", "--config", "x.yaml", "--b", "2", "-c", "y.yaml", "--config=z.yaml", "--c"]
    front = ["--config=x.yaml", "--config=y.yaml", "--config=z.yaml"]
    assert configs_first(argv) == [*front, "--a=1", "--b", "2", "--c"]


def test_without_a_checkpoint_there_is_nothing_to_validate(run):
    assert implied_config("validate", []) is None
    assert implied_config("validate", ["--ckpt_path=elsewhere.ckpt"]) is None


def test_a_config_without_data_leaves_the_checkpoints_run_in_place(run):
    """As `tune_crf` writes it."""
    Path("best.yaml").write_text("crf:\n  bi_w: 5\n")
    Path("mine.yaml").write_text("data: VOC\n")
    checkpoint = f"--ckpt_path={run / 'checkpoints/best.ckpt'}"
    for config in (["--config=best.yaml"],):
        assert implied_config("validate", [checkpoint, *config]) == run / "config.yaml"
        assert implied_config("fit", config) is None
    assert implied_config("validate", [checkpoint, "--config=mine.yaml"]) is None
    Path("mine.yaml").write_text("val_data: VOC\n")
    assert implied_config("validate", [checkpoint, "--config=mine.yaml"]) is None


def test_a_question_for_help_gets_no_configuration(run):
    assert implied_config("fit", ["--data.help", "VOC"]) is None


def test_the_last_of_two_values_counts_as_in_the_parser(run):
    Path("mine.yaml").write_text("experiment: theirs\nckpt_path: c\n")
    argv = ["--config=mine.yaml", "--ckpt_path=a", "--ckpt_path", "b"]
    assert value_of(argv, "ckpt_path") == "b"
    assert value_of(argv, "experiment") == "theirs"
    assert value_of(argv[:1], "ckpt_path") == "c"
    assert value_of(argv, "run") == ""


def test_last_goes_on_with_the_run_whose_configuration_it_takes(trained, tmp_path):
    """Although there is another run that the copied one's own words would lead to."""
    for place in ("shapes/older", "mine/newest"):
        shutil.copytree(trained.parents[1], tmp_path / place)
    (tmp_path / "mine/newest/checkpoints/last.ckpt").touch()
    done = fit.main(["--ckpt_path=last", f"--runs_dir={tmp_path}"])
    assert done.folder == tmp_path / "mine/newest"


SPEC = {"class_path": "evil.Evil", "init_args": {"a": 1}}


@pytest.fixture
def downloaded(trained, tmp_path, monkeypatch):
    """A run from elsewhere, in a folder with a module of its own that must not be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(trained.parents[1], "theirs/run")
    Path("evil.py").write_text("raise SystemExit('imported')\n")
    yield Path("theirs/run")
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    "how", [{"data": SPEC}, {"model": {"loss": "evil.Evil"}}, {"trainer": {"callbacks": [SPEC]}}]
)
def test_commands_run_nothing_that_came_with_a_run(downloaded, how, capsys):
    content = yaml.safe_load((downloaded / "config.yaml").read_text())
    (downloaded / "config.yaml").write_text(yaml.safe_dump(content | how))
    best = f"--ckpt_path={downloaded / 'checkpoints/best.ckpt'}"
    last = ["--ckpt_path=last", "--runs_dir=.", "--experiment=theirs", "--run=run"]
    calls = [(fit, [best.replace("best", "last")]), (fit, last)]
    if "data" in how:
        calls += [(validate, [best]), (tune_crf, [best, "--out=out"])]
    for command, argv in calls:
        with pytest.raises(SystemExit) as stop:
            command.main(argv)
        assert stop.value.code == 2
        assert f"--config {downloaded / 'config.yaml'}" in capsys.readouterr().err
    assert {path.name for path in Path.cwd().iterdir()} == {"theirs", "evil.py"}


@pytest.mark.parametrize("settings", [
    {"_class_path": "evil.Evil"}, {"class_path": "evil.Evil"}, {"lr": "evil.Evil"},
    {"lr_policy": "evil.Evil"}, {"backbone": "evil.Evil"}, {"head": "evil.Evil"},
    {"lr": SPEC}, {"_instantiator": "evil.run", "weights": SPEC},
])  # fmt: skip
def test_settings_in_a_checkpoint_name_nothing_to_run(downloaded, settings, capsys):
    path = downloaded / "checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] |= settings
    torch.save(content, path)
    with pytest.raises(SystemExit) as stop:
        fit.main([f"--ckpt_path={path}"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(path) in error


def test_a_validation_reads_nothing_of_a_checkpoint_but_its_network(downloaded):
    path = downloaded / "checkpoints/best.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] |= {"class_path": "evil.Evil", "lr": SPEC, "weights": "evil.run"}
    torch.save(content, path)
    assert validate.main([f"--ckpt_path={path}"]).record.final["images"] == 3


def test_only_options_that_take_a_class_allow_one_of_a_run():
    assert typed_classes(["--run=my.Cls", "--experiment", "my.Cls"]) == set()
    words = ["--metrics", "[my.M]", "--model.loss=my.Loss", "--config={data: my.Data}"]
    assert typed_classes(words) >= {"my.M", "my.Loss"}
    assert typed_classes(["--config={data: {class_path: my.Data}}"]) == {"my.Data"}
