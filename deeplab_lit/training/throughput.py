"""How fast training goes and how much memory it takes."""

import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs train/images_per_second, over all processes, and on a GPU train/memory_gib.

    The time that validation takes is not counted.
    """

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self.last_end: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.last_end = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict,
        batch: dict,
        batch_idx: int,
    ) -> None:
        """Count a batch, waiting for data included; log when it is time."""
        now = time.perf_counter()
        self.seconds += now - self.last_end
        self.images += len(batch["id"]) * trainer.world_size
        self.last_end = now
        if (trainer.fit_loop.total_batch_idx + 1) % trainer.log_every_n_steps == 0:
            values = {"train/images_per_second": self.images / self.seconds}
            if pl_module.device.type == "cuda":
                peak = torch.cuda.max_memory_allocated(pl_module.device)
                values["train/memory_gib"] = peak / 2**30
            for logger in trainer.loggers:
                logger.log_metrics(
                    values, step=max(trainer.global_step - 1, 0)
                )  # as self.log counts
            self.images, self.seconds = 0, 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the validation."""
        self.last_end = time.perf_counter()
