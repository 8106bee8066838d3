from types import SimpleNamespace

import pytest
from jsonargparse import Namespace

from deeplab_lit.runs.config import RunConfig


class Parser:
    def dump(self, config, **kwargs):
        assert config.run is config.ckpt_path is None
        return f"model:\n  lr: {config.lr}\n"


def config(lr):
    return Namespace(lr=lr, run="one", ckpt_path="last", trainer=Namespace(logger=None))


def save(folder, lr, step=0):
    callback = RunConfig(Parser(), config(lr), folder=folder, step=step)
    callback.save_config(SimpleNamespace(loggers=[]), None, "fit")


def test_the_config_is_that_with_which_the_run_goes_on_and_none_is_lost(tmp_path):
    for lr, step in ((1, 0), (2, 500), (2, 600), (3, 500), (4, 700)):
        save(tmp_path, lr, step)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {
        "config.yaml": "model:\n  lr: 4\n",
        "config_until_step_500.yaml": "model:\n  lr: 1\n",
        "config_until_step_500_2.yaml": "model:\n  lr: 2\n",
        "config_until_step_700.yaml": "model:\n  lr: 3\n",
    }


def test_what_was_to_be_trained_with_another_config_and_was_not_is_forgotten(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert (tmp_path / "config.yaml").read_text() == "model:\n  lr: 2\n"


def test_a_config_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(self, content):
        self.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2)
    assert (tmp_path / "config.yaml").read_text() == "model:\n  lr: 1\n"


def test_loggers_get_the_nested_values(tmp_path):
    seen = []
    logger = SimpleNamespace(log_hyperparams=seen.append)
    callback = RunConfig(Parser(), config(0.5), folder=tmp_path, step=0)
    callback.save_config(SimpleNamespace(loggers=[logger]), None, "fit")
    assert seen == [{"model": {"lr": pytest.approx(0.5)}}]
