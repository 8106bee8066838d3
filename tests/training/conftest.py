from collections.abc import Callable

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from PIL import Image

from deeplab_lit.data import Cityscapes, Shapes
from deeplab_lit.training.module import DeepLabModule


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    torch.manual_seed(0)


@pytest.fixture
def make_data() -> Callable[..., LightningDataModule]:
    """Sixteen drawn images to train on, in batches of two, and five to validate on."""

    def make(**kwargs):
        sizes = {"train_size": 16, "val_size": 5, "batch_size": 2, "crop_size": 65}
        return Shapes(**{**sizes, "num_workers": 0, **kwargs})

    return make


@pytest.fixture
def make_module() -> Callable[..., DeepLabModule]:
    """The smallest network; always with the same weights."""

    def make(classes=Shapes.classes, **kwargs):
        small = {"backbone": "resnet10_quarter", "weights": "none", "norm": "batch", "lr": 1e-3}
        small["collapse_share"] = 1.0  # a few steps find no class but background
        torch.manual_seed(0)
        return DeepLabModule(
            classes, **{**small, "scales": (1.0,), "atrous_rates": (2, 4), **kwargs}
        )

    return make


@pytest.fixture
def make_trainer(tmp_path) -> Callable[..., Trainer]:
    """A quiet trainer on one CPU, seeded, that writes below tmp_path."""

    def make(**kwargs):
        seed_everything(0, verbose=False)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0}
        return Trainer(
            **{
                "accelerator": "cpu",
                "devices": 1,
                "max_steps": 4,
                "default_root_dir": tmp_path,
                "log_every_n_steps": 1,
                **quiet,
                **kwargs,
            }
        )

    return make


def _frame(rng):
    """A label map and its instances: blobs of all kinds, groups (below 1000) among them."""
    labels = np.kron(rng.integers(0, 34, (6, 8)), np.ones((20, 20), np.int64))
    instances = labels.copy()
    for number in range(40):
        y, x = rng.integers(0, 110), rng.integers(0, 150)
        label = rng.integers(24, 34)
        place = np.s_[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)]
        labels[place] = label
        instances[place] = label if rng.random() < 0.2 else 1000 * label + number
    return labels, instances


@pytest.fixture
def city(tmp_path):
    """Cityscapes of three drawn val frames."""
    rng = np.random.default_rng(0)
    for i in range(3):
        labels, instances = _frame(rng)
        name = f"val/bonn/bonn_00000{i}_000019"
        files = {
            f"leftImg8bit/{name}_leftImg8bit.png": rng.integers(256, size=(120, 160, 3)).astype(
                np.uint8
            ),
            f"gtFine/{name}_gtFine_labelIds.png": labels.astype(np.uint8),
            f"gtFine/{name}_gtFine_instanceIds.png": instances.astype(np.uint16),
        }
        for file, values in files.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / file)
    return Cityscapes(str(tmp_path), num_workers=0)
