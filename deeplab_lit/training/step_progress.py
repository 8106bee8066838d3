"""One progress bar for the whole training, in optimizer steps, and one for each validation."""

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
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
