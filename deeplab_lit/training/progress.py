"""Show the progress of a training: bars on the screen, speed and memory in the logs."""

import re
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from deeplab_lit.progress_bar import progress_bar


class StepProgress(ProgressBar):
    """Show steps done and to do, time left, loss and mIoU, on stderr.

    Where stderr is not a terminal it prints a line now and then instead of redrawing one, and none
    for the validations of a training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.training: tqdm = tqdm(disable=True)
        self.validation: tqdm = tqdm(disable=True)
        self.enabled = True

    def disable(self) -> None:
        """Hide the bars: Lightning's call on all processes but the first."""
        self.enabled = False

    def enable(self) -> None:
        """Show the bars: Lightning's call on the first process."""
        self.enabled = True

    def print(self, *args: object, sep: str = " ", **kwargs: object) -> None:
        """Print a line without breaking the bar."""
        if self.enabled:
            tqdm.write(sep.join(map(str, args)), file=sys.stderr)

    def _bar(self, label: str, total: float, done: int = 0, *, leave: bool, unit: str) -> tqdm:
        return progress_bar(
            desc=label,
            total=int(total),
            initial=done,
            unit=unit,
            leave=leave,
            disable=not self.enabled or not (leave or sys.stderr.isatty()),
            mininterval=0.2,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, or go on, at the optimizer step where the run stands."""
        total = trainer.estimated_stepping_batches
        self.training = self._bar("training", total, trainer.global_step, leave=True, unit=" steps")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict,
        batch_idx: int,
    ) -> None:
        """Move on with each optimizer step."""
        done = trainer.global_step - self.training.n
        if done:
            self._show(trainer, pl_module)
            self.training.update(done)

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = self.get_metrics(trainer, pl_module)
        numbers = {
            "loss": metrics.get("train/loss"),
            "mIoU": metrics.get("val/miou"),
        }
        self.training.set_postfix(
            {k: f"{v:.3f}" for k, v in numbers.items() if v is not None}, refresh=False
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show a second bar, which goes when validation is done."""
        total = sum(
            trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        )
        alone = trainer.state.fn == "validate"
        self.validation = self._bar("validating", total, leave=alone, unit=" batches")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move on with each batch."""
        self.validation.update()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the new mIoU beside the loss."""
        self.validation.close()
        self._show(trainer, pl_module)
        self.training.refresh()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the full bar."""
        self.training.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the bars where they are."""
        for bar in (self.validation, self.training):
            bar.close()


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
