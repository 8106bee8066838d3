import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from deeplab_lit import fit, tune_crf, validate
from deeplab_lit.cli.defaults import (
    SHAPES,
    configs_first,
    implied_config,
    trusted,
    value_of,
    with_checkpoint_named,
)
from deeplab_lit.runs.folder import RunFolderError
from deeplab_lit.yaml_files import ConfigError


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
    argv = with_checkpoint_named(["--crf", *said, "--data.batch_size", "2"])
    path = run / "checkpoints/last.ckpt"
    assert argv == ["--crf", "--data.batch_size", "2", f"--ckpt_path={path}"]
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


def test_the_last_of_two_values_counts_as_in_the_parser(run):
    Path("mine.yaml").write_text("experiment: theirs\nckpt_path: c\n")
    argv = ["--config=mine.yaml", "--ckpt_path=a", "--ckpt_path", "b"]
    assert value_of(argv, "ckpt_path") == "b"
    assert value_of(argv, "experiment") == "theirs"
    assert value_of(argv[:1], "ckpt_path") == "c"
    assert value_of(argv, "run") == ""


DATA = {"class_path": "deeplab_lit.data.Shapes", "init_args": {"train_size": 8, "scales": [1.0]}}
SPEC = {"class_path": "evil.Evil", "init_args": {"a": 1}}
IN_THE_DATA = {
    "a class of a module in the folder": {"data": SPEC},
    "its name alone": {"data": "evil.Evil"},
    "a class of another package": {"data": {"class_path": "lightning.pytorch.LightningDataModule"}},
    "our class by another way": {"data": {"class_path": "deeplab_lit.data.voc.os.system"}},
    "a class among the arguments": {"data": DATA | {"init_args": {"scales": SPEC}}},
    "arguments that no signature has": {"data": DATA | {"dict_kwargs": {"a": 1}}},
    "another configuration": {"data": "other.yaml"},
    "no data": {},
    "an option behind a dot": {"data": DATA | {"init_args": {"a.class_path": "evil.Evil"}}},
}
ELSEWHERE = {
    "a callback": {"trainer": {"callbacks": [SPEC]}},
    "a callback by name": {"trainer": {"callbacks": ["evil.Evil"]}},
    "a function as a callback": {
        "trainer": {"callbacks": {"class_path": "lightning.pytorch.callbacks.LambdaCallback",
                                  "init_args": {"on_fit_start": "evil.run"}}}},
    "a logger": {"trainer": {"logger": "evil.Evil"}},
    "a plugin": {"trainer": {"plugins": SPEC}},
    "a profiler": {"trainer": {"profiler": "evil.Evil"}},
    "a strategy": {"trainer": {"strategy": "evil.Evil"}},
    "an accelerator": {"trainer": {"accelerator": SPEC}},
    "a folder of the trainer": {"trainer": {"default_root_dir": "elsewhere"}},
    "a folder for checkpoints": {"checkpoint": {"dirpath": "elsewhere"}},
    "a name that leaves the folder": {"checkpoint": {"filename": "../../best"}},
    "a folder for a cache": {"eval": {"cache_dir": "elsewhere"}},
    "a section as a class": {"crf": "evil.Evil"},
    "a section as a file": {"model": "other.yaml"},
    "an option behind a dot ": {"trainer.callbacks": [SPEC]},
    "a list that is added to": {"trainer": {"callbacks+": ["evil.Evil"]}},
}  # fmt: skip


def write(run, content):
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    return run / "config.yaml"


@pytest.mark.parametrize("verb", ["fit", "validate", "tune_crf"])
@pytest.mark.parametrize("case", IN_THE_DATA)
def test_a_configuration_that_nobody_typed_names_data_sets_of_ours_alone(run, verb, case):
    config = write(run, IN_THE_DATA[case])
    if case == "no data" and verb == "fit":
        assert trusted(config, verb) == {}  # and the parser says that it is missing
        return
    with pytest.raises(ConfigError, match=rf"{config} was not typed, .* --config {config}"):
        trusted(config, verb)


@pytest.mark.parametrize("case", ELSEWHERE)
def test_what_runs_code_or_writes_elsewhere_is_refused_or_not_taken(run, case):
    config = write(run, {"data": DATA} | ELSEWHERE[case])
    with pytest.raises(ConfigError, match=f"{config} was not typed"):
        trusted(config, "fit")
    assert trusted(config, "tune_crf") == {"data": DATA}
    if case == "an accelerator":
        with pytest.raises(ConfigError):
            trusted(config, "validate")
        return
    taken = trusted(config, "validate")
    assert taken.pop("data") == DATA
    assert not any(taken.values())


def test_a_training_goes_on_with_all_plain_options(run):
    content = yaml.safe_load(SHAPES.read_text("utf-8"))
    content["trainer"] |= {"precision": "bf16-mixed", "strategy": "ddp", "devices": [0, 1],
                           "callbacks": None, "logger": True}  # fmt: skip
    content |= {"checkpoint": {"monitor": "val/miou", "filename": "best", "dirpath": None}}
    content.pop("experiment", None)
    said = {"runs_dir": "/elsewhere", "experiment": "../x", "run": "a", "ckpt_path": "b"}
    assert trusted(write(run, content | said), "fit") == content


def test_scoring_begins_as_the_training_scored(run):
    evaluation = {"window": [97, 97], "scales": [1.0], "cache_dir": "elsewhere", "band": "void"}
    trainer = {"precision": "bf16-mixed", "max_steps": 3}
    content = {"data": DATA, "eval": evaluation, "trainer": trainer}
    content |= {"model": {"lr": 1.0}, "crf": {"enabled": True}, "seed_everything": 3}
    assert trusted(write(run, content), "validate") == {
        "data": DATA,
        "eval": {"window": [97, 97], "scales": [1.0]},
        "trainer": {"precision": "bf16-mixed"},
    }


def test_a_run_that_lies_where_it_was_written_has_its_neighbors_there(run, monkeypatch):
    there = {"runs_dir": "runs", "experiment": "mine"}
    config = write(run, {"data": DATA} | there)
    assert trusted(config, "validate") == {"data": DATA} | there
    shutil.copytree(run, "copied/mine/one")
    assert trusted(Path("copied/mine/one/config.yaml"), "validate") == {"data": DATA}


def test_last_goes_on_with_the_run_whose_configuration_it_takes(trained, tmp_path):
    """Although there is another run that the copied one's own words would lead to."""
    for place in ("shapes/older", "mine/newest"):
        shutil.copytree(trained.parents[1], tmp_path / place)
    (tmp_path / "mine/newest/checkpoints/last.ckpt").touch()
    done = fit.main(["--ckpt_path=last", f"--runs_dir={tmp_path}"])
    assert done.folder == tmp_path / "mine/newest"


@pytest.fixture
def downloaded(trained, tmp_path, monkeypatch):
    """A run from elsewhere, in a folder with a module of its own that must not be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(trained.parents[1], "theirs/run")
    Path("evil.py").write_text("raise SystemExit('imported')\n")
    yield Path("theirs/run")
    assert "evil" not in sys.modules


@pytest.mark.parametrize("how", [{"data": SPEC}, {"trainer": {"callbacks": [SPEC]}}])
def test_commands_run_nothing_that_came_with_a_run(downloaded, how, capsys):
    content = yaml.safe_load((downloaded / "config.yaml").read_text())
    write(downloaded, content | how)
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
    {"lr": SPEC}, {"_instantiator": "evil.run", "weights": SPEC},
])  # fmt: skip
def test_settings_in_a_checkpoint_name_nothing_to_run(downloaded, settings, capsys):
    path = downloaded / "checkpoints/best.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] |= settings
    torch.save(content, path)
    with pytest.raises(SystemExit) as stop:
        validate.main([f"--ckpt_path={path}"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert str(path) in said


@pytest.mark.parametrize(
    "trainer",
    [
        {"max_time": "00:12:00:00", "val_check_interval": "00:01:00:00", "profiler": "simple"},
        {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}]},
    ],
)
def test_a_run_of_ones_own_with_a_time_limit_or_early_stopping_goes_on(tmp_path, trainer):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"data": {"class_path": "Shapes"}, "trainer": trainer}))
    assert trusted(path, "fit")["trainer"] == trainer
