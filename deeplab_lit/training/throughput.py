"""Speed of training, and the memory it takes."""

import re
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


def peak_resident_memory() -> int | None:
    """Return the most main memory that this process has held, in bytes; None: not known.

    Workers that read data are processes of their own.
    """
    try:  # what getrusage tells of a child begins with its parent's peak, on Linux
        (kib,) = re.findall(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
        return 1024 * int(kib)
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def log_interval(trainer: Trainer) -> int:
    """Return after how many optimizer steps numbers are logged, from 1 up."""
    return trainer.log_every_n_steps  # type: ignore[attr-defined] # set by a connector


class Throughput(Callback):
    """Log images a second over all processes, and how much memory the first one has held so far.

    train/images_per_second, where the time that validations and their checkpoints take is not
    counted; train/resident_memory_gib in main memory; on a GPU train/gpu_memory_gib, as PyTorch
    counts it.
    """

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self.last_end = 0.0  # when the batch before ended, without validations
        self.paused = False  # by a validation
        self.steps_done = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.last_end = time.perf_counter()
        self.steps_done = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict,
        batch_idx: int,
    ) -> None:
        """Count a batch, waiting for data included; log when self.log does."""
        now = time.perf_counter()
        self.seconds += now - self.last_end
        self.images += len(batch["id"]) * trainer.world_size
        self.last_end = now
        stepped, self.steps_done = trainer.global_step > self.steps_done, trainer.global_step
        if stepped and trainer.global_step % log_interval(trainer) == 0:
            values = {"train/images_per_second": self.images / self.seconds}
            if pl_module.device.type == "cuda":
                allocated = torch.cuda.max_memory_allocated(pl_module.device)
                values["train/gpu_memory_gib"] = allocated / 2**30
            if (peak := peak_resident_memory()) is not None:
                values["train/resident_memory_gib"] = peak / 2**30
            for logger in trainer.loggers:  # steps as self.log counts them
                logger.log_metrics(values, step=max(trainer.global_step - 1, 0))
            self.images, self.seconds = 0, 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the validation, and the checkpoint that is written after it."""
        self.paused = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict, batch_idx: int
    ) -> None:
        """Go on after a validation."""
        if self.paused:
            self.paused, self.last_end = False, time.perf_counter()
