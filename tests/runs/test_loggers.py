import os
import sys

import pytest
import wandb
from jsonargparse import Namespace
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit.runs.config import put_save_dir, with_save_dir
from deeplab_lit.runs.csv_logger import MetricsFile
from deeplab_lit.runs.loggers import (
    build_loggers,
    log_checkpoint,
    log_config,
    run_id,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs/voc/first"


@pytest.fixture
def _logged_out(tmp_path, monkeypatch):
    for key in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "NETRC"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    wandb.teardown()  # it remembers the settings of the process
    yield
    wandb.teardown()


def build(folder, **kwargs):
    options = {"experiment": "voc", "job_type": "fit", "resume_step": None}
    return build_loggers(folder, **{**options, **kwargs})


def mode(loggers):
    """What wandb.init will be told."""
    return loggers[1]._wandb_init["mode"]


def test_there_is_always_a_file_and_wandb(folder):
    file, remote = build(folder)
    assert isinstance(file, MetricsFile)
    assert isinstance(remote, WandbLogger)
    assert file.save_dir == remote.save_dir == str(folder)
    assert not folder.exists()  # nothing is written before training starts


def test_a_run_is_filed_under_its_experiment(folder, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    found = build(folder, job_type="validate")[1]._wandb_init
    expected = {"project": "deeplab_lit", "group": "voc", "name": "first", "id": "voc-first"}
    assert {key: found[key] for key in expected} == expected
    assert found["job_type"] == "validate"
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert build(folder)[1]._wandb_init["project"] == "mine"


@pytest.mark.parametrize("name", ["x" * 130, "x" * 85, "short"])
def test_a_long_name_leaves_room_for_what_wandb_names_after_the_id(name):
    id = run_id("a b", name)
    assert id.startswith("a-b-")
    assert wandb.Artifact(f"run-{id}-valiou_by_class", type="table").name  # or it raises
    assert id == run_id("a b", name)
    assert id != run_id("a b", name + "x")


def test_a_run_that_goes_on_keeps_its_numbers(folder):
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("step,x\n1,5\n9,6\n")
    assert build(folder, resume_step=3)[0].rows == {1: {"x": "5"}}
    assert build(folder)[0].rows == {}


@pytest.mark.usefixtures("_logged_out")
def test_who_is_not_logged_in_logs_offline(folder):
    assert mode(build(folder)) == "offline"


@pytest.mark.usefixtures("_logged_out")
@pytest.mark.parametrize(("answer", "expected"), [(True, "online"), (False, "offline")])
def test_who_is_logged_in_logs_online(answer, expected, folder, monkeypatch):
    asked = []
    monkeypatch.setattr(wandb, "login", lambda **kwargs: asked.append(kwargs) or answer)
    assert mode(build(folder)) == expected
    assert asked == [{"prompt": False}]  # nobody is asked for a key


@pytest.mark.usefixtures("_logged_out")
@pytest.mark.parametrize(
    "error", [wandb.errors.CommError, wandb.errors.AuthenticationError, OSError, ValueError]
)
def test_where_nobody_can_log_in_a_run_is_logged_offline(error, folder, monkeypatch, capsys):
    def fail(**kwargs):
        raise error("no route to host")

    monkeypatch.setattr(wandb, "login", fail)
    assert mode(build(folder)) == "offline"
    assert "logged offline (no route to host)" in capsys.readouterr().out


@pytest.mark.usefixtures("_logged_out")
@pytest.mark.parametrize("asked", ["disabled", "offline", "online"])
def test_wandb_mode_is_respected(asked, folder, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", asked)
    monkeypatch.setattr(wandb, "login", lambda **kwargs: pytest.fail("asked for a login"))
    assert mode(build(folder)) is None  # wandb reads the variable itself


@pytest.mark.usefixtures("_logged_out")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {"silent": True}),
        ({"WANDB_MODE": "offline"}, {"silent": True}),
        ({"WANDB_MODE": "online"}, {"quiet": True}),
        ({"WANDB_SILENT": "false"}, {}),
    ],
)
def test_wandb_says_little_unless_the_user_wants_it_to(variables, expected, folder, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert build(folder)[1]._wandb_init["settings"] == expected


@pytest.mark.parametrize("home", [None, "/proc/home"])
def test_without_a_home_wandb_keeps_to_the_run_folder(home, folder, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # so that all of them are as before afterwards
        monkeypatch.delenv(name)
    if home:
        monkeypatch.setenv("HOME", home)
    build(folder)
    assert os.environ["WANDB_CACHE_DIR"] == str(folder / "wandb")
    monkeypatch.setenv("WANDB_CACHE_DIR", "mine")
    build(folder)
    assert os.environ["WANDB_CACHE_DIR"] == "mine"


def test_with_a_home_wandb_has_its_own_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CACHE_DIR", "")
    monkeypatch.delenv("WANDB_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    build(folder)
    assert "WANDB_CACHE_DIR" not in os.environ


def test_wandb_may_be_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    loggers = build(folder)
    assert [type(logger) for logger in loggers] == [MetricsFile]
    log_config(loggers, {"model": {"lr": 1}})


def test_disabled_wandb_lets_a_run_be_and_writes_nothing(
    folder, make_module, make_data, make_trainer
):
    loggers = build(folder)
    trainer = make_trainer(logger=loggers, max_steps=2, val_check_interval=1)
    log_config(loggers, {"model": {"lr": 1}})
    trainer.fit(make_module(), make_data())
    assert [path.name for path in folder.iterdir()] == ["metrics.csv"]


@pytest.mark.usefixtures("_logged_out")
def test_only_the_first_process_logs(folder, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    loggers = build(folder)
    log_config(loggers, {"model": {"lr": 1}})
    for logger in loggers:
        logger.log_metrics({"train/loss": 1.0}, step=1)
        logger.finalize("success")
    assert wandb.run is None
    assert not folder.exists()


def test_the_nested_configuration_reaches_every_logger():
    class Experiment:
        defined = {}

        def define_metric(self, name, summary):
            self.defined[name] = summary

    class Fake(WandbLogger):
        experiment = Experiment()

        def __init__(self):
            self.config = None

        def log_hyperparams(self, params):
            self.config = params

    fake, config = Fake(), {"model": {"atrous_rates": [6, 12]}}
    log_config([MetricsFile.__new__(MetricsFile), fake], config)
    assert fake.config == config
    scores = ("val/miou", "val/miou*", "val_crf/miou", "val_crf/miou*")  # miou16 and miou13 too
    assert Experiment.defined == dict.fromkeys(scores, "max")


@pytest.mark.parametrize("error", [wandb.errors.CommError("no route"), OSError("disk full")])
def test_a_checkpoint_that_wandb_does_not_take_harms_nothing(error, tmp_path, capsys):
    class Experiment:
        id = "voc-first"
        taken = []

        def log_artifact(self, artifact, aliases):
            self.taken.append((artifact.name, artifact.type, aliases))
            raise error

    class Fake(WandbLogger):
        experiment = Experiment()

        def __init__(self):
            pass

    path = tmp_path / "best.ckpt"
    path.write_bytes(b"weights")
    log_checkpoint([MetricsFile(tmp_path), Fake()], path)
    assert Experiment.taken == [("voc-first-best", "model", ["best"])]
    assert path.read_bytes() == b"weights"
    assert str(error) in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.logger", "TensorBoardLogger"],
        ["--trainer.logger=lightning.pytorch.loggers.CSVLogger"],
        ["--trainer.logger+=WandbLogger"],
    ],
)
def test_a_logger_that_writes_files_writes_them_into_the_run_folder(words):
    assert with_save_dir(["a", *words, "b"]) == [
        *("a", *words, "--trainer.logger.save_dir=RUN_FOLDER", "b")
    ]


def test_other_options_are_left_as_they_are():
    words = ["--trainer.logger", "false", "--experiment=TensorBoardLogger", "CSVLogger"]
    assert with_save_dir(words) == words


def test_only_a_save_dir_that_nobody_has_chosen_is_changed():
    mine, own = (Namespace({"class_path": "x", "init_args.save_dir": d}) for d in ("a", "RUN"))
    put_save_dir([mine, own, True], "RUN", "runs/1")
    assert (mine.init_args.save_dir, own.init_args.save_dir) == ("a", "runs/1")
    put_save_dir(None, "RUN", "runs/1")
