import json
import os
import subprocess
import sys

import pytest
import wandb

from deeplab_lit import fit
from deeplab_lit.runs.loggers import build_loggers, log_config

KILLED = """
import psutil
from deeplab_lit import fit
from deeplab_lit.training.progress import Throughput

def kill(*args):
    children = psutil.Process().children(recursive=True)
    processes = [child for child in children if child.name() == "wandb-core"]
    assert processes
    for process in processes:
        process.kill()

Throughput.on_train_start, start = lambda *args: (kill(), start(*args)), Throughput.on_train_start
fit.main()
"""


def test_a_training_outlives_the_process_of_wandb(tmp_path, tiny_args):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environment |= {"WANDB_MODE": "offline"}
    options = {"--run": "one", "--trainer.log_every_n_steps": "1", "--wandb_checkpoint": "true"}
    command = [sys.executable, "-c", KILLED, *tiny_args(tmp_path / "runs", **options)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("W&B has failed") == 1
    assert "Traceback" not in run.stderr
    results = json.loads((tmp_path / "runs/shapes/one/results.json").read_text())
    assert (results["finished"], results["steps"]) == (True, 4)
    assert (tmp_path / "runs/shapes/one/checkpoints/best.ckpt").is_file()


@pytest.fixture
def train(tmp_path, make_module, make_data, make_trainer):
    """Trains two steps, as `fit` does; returns W&B's logger."""

    def run():
        wandb.finish()  # a run that another test has left would be gone on with
        loggers = build_loggers(tmp_path, experiment="voc", job_type="fit", resume_step=None)
        trainer = make_trainer(logger=loggers, max_steps=2, val_check_interval=1)
        log_config(loggers, {"model": {"lr": 1}})
        trainer.fit(make_module(), make_data())
        assert trainer.global_step == 2
        return loggers[1]

    return run


@pytest.mark.parametrize("variable", ["WANDB_TAGS", "WANDB_PROJECT"])
def test_what_wandb_refuses_is_said_once_and_stops_no_training(
    variable, train, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv(variable, "x" * 130)  # of a tag 64 are allowed, of a project 128
    wandb.teardown()  # it remembers the settings of the process
    logger = train()
    wandb.teardown()
    said = capsys.readouterr().out
    assert said.count("W&B has failed") == 1
    assert "x" * 20 in said
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 3
    assert not (tmp_path / "wandb").exists()
    logger.experiment.log({"a": 1})  # as a callback of the user's may


def test_without_a_key_online_stops_no_training(train, tmp_path, monkeypatch, capsys):
    for key in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "online")
    wandb.teardown()
    train()
    wandb.teardown()
    assert "wandb login" in capsys.readouterr().out


def test_ctrl_c_while_wandb_begins_is_no_failure_of_its(train, monkeypatch):
    def interrupt(**kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(wandb, "init", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train()


def test_runs_in_one_process_are_apart_but_a_run_of_the_users_goes_on(
    tmp_path, tiny_args, monkeypatch
):
    """As in a notebook: fit, then validate."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()
    for name in ("one", "two"):
        done = fit.main(tiny_args(tmp_path, **{"--run": name, "--trainer.max_steps": "1"}))
        (run,) = (done.folder / "wandb").glob("offline-run-*")
        assert run.name.endswith(name)
        assert wandb.run is None
    with wandb.init(dir=tmp_path) as own:
        done = fit.main(tiny_args(tmp_path, **{"--run": "three", "--trainer.max_steps": "1"}))
        assert not (done.folder / "wandb").exists()
        assert wandb.run is own
    wandb.teardown()


def test_a_training_that_failed_leaves_no_run_open(tmp_path, tiny_args, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()
    options = {"--run": "one", "--model.lr": "1e30"}
    with pytest.raises(SystemExit):
        fit.main(tiny_args(tmp_path, **options, **{"--trainer.max_steps": "40"}))
    assert list((tmp_path / "shapes/one/wandb").glob("offline-run-*"))
    assert wandb.run is None
    wandb.teardown()
