"""A training without the command line, as in a notebook."""

import json

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit import DataModule, DeepLabModule, Segmenter, Shapes, load, validate
from deeplab_lit.cli.callbacks import in_run_folder
from deeplab_lit.runs.folder import RunFolderError


def test_a_training_in_python_keeps_its_run_in_a_folder(tmp_path, capsys):
    data = Shapes(train_size=4, val_size=2)
    batches = DataModule(data, batch_size=2, crop_size=65, num_workers=0)
    module = DeepLabModule(
        data.classes, backbone="resnet10_quarter", weights="none", norm="batch", lr=0.01
    )
    folder = tmp_path / "mine/one"
    steps = {"max_steps": 2, "val_check_interval": 2, "log_every_n_steps": 1}
    trainer = Trainer(accelerator="cpu", **steps, **in_run_folder(folder, wandb=False))
    trainer.fit(module, batches)

    record = json.loads((folder / "results.json").read_text())
    assert record["finished"]
    assert record["best"]["step"] == 2
    assert {"metrics.csv", "predictions.png"} <= {path.name for path in folder.iterdir()}
    net = load(folder / "checkpoints/best.ckpt")
    assert net.classes == data.classes
    assert Segmenter(net)(torch.zeros(40, 50, 3, dtype=torch.uint8)).shape == (40, 50)
    scored = (
        f"--ckpt_path={folder}/checkpoints/best.ckpt",
        "--data=Shapes",
        "--data.val_split=train",
    )
    with pytest.raises(SystemExit):
        validate.main(scored)
    assert "was trained on Shapes:train. To score it on such" in capsys.readouterr().err
    with pytest.raises(RunFolderError, match="another run has just taken this folder"):
        in_run_folder(folder)


def test_a_trainer_needs_no_folder(tmp_path):
    data = Shapes(train_size=2, val_size=1)
    module = DeepLabModule(data.classes, backbone="resnet6_half", weights="none", norm="batch")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path, **quiet)
    trainer.fit(module, DataModule(data, batch_size=2, crop_size=65, num_workers=0))
    assert trainer.global_step == 1
    assert not list(tmp_path.iterdir())


def test_a_further_process_of_a_training_shares_the_folder_of_the_first(tmp_path, monkeypatch):
    in_run_folder(tmp_path / "one", wandb=False)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    in_run_folder(tmp_path / "one", wandb=False)
