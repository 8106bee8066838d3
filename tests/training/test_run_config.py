from types import SimpleNamespace

import pytest
from jsonargparse import Namespace

from deeplab_lit.training.run_config import RunConfig


class Parser:
    def dump(self, config, **kwargs):
        assert config.run is config.ckpt_path is None
        return f"model:\n  lr: {config.lr}\n"


def config(lr):
    return Namespace(lr=lr, run="one", ckpt_path="last")


def save(folder, lr, step=0):
    callback = RunConfig(Parser(), config(lr), folder=folder, step=step)
    callback.save_config(SimpleNamespace(loggers=[]), None, "fit")


def test_nothing_is_overwritten_when_a_run_goes_on(tmp_path):
    for lr, step in ((1, 0), (2, 500), (3, 500), (4, 700)):
        save(tmp_path, lr, step)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {
        "config.yaml": "model:\n  lr: 1\n",
        "config_from_step_500.yaml": "model:\n  lr: 2\n",
        "config_from_step_500_2.yaml": "model:\n  lr: 3\n",
        "config_from_step_700.yaml": "model:\n  lr: 4\n",
    }


def test_loggers_get_the_nested_values(tmp_path):
    seen = []
    logger = SimpleNamespace(log_hyperparams=seen.append)
    callback = RunConfig(Parser(), config(0.5), folder=tmp_path, step=0)
    callback.save_config(SimpleNamespace(loggers=[logger]), None, "fit")
    assert seen == [{"model": {"lr": pytest.approx(0.5)}}]
