from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything

from deeplab_lit.data import Shapes
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
