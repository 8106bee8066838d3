"""Random numbers that do not depend on how a run got where it is."""

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class StepSeed(Callback):
    """Seed torch before every training batch from the run's seed, the batch and the process.

    Dropout then draws the same numbers in a run that was interrupted and resumed as in one that was
    not, on any number of processes, with no generator state in the checkpoint. (The order and the
    augmentation of the data come from positions in the stream: `data/sampler.py`.)
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the seed that seed_everything has set."""
        self.seed = torch.initial_seed()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict, batch_idx: int
    ) -> None:
        """Seed from (run, step, batch of the step, process)."""
        part = batch_idx % trainer.accumulate_grad_batches
        key = (self.seed, trainer.global_step, part, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the generator its seed back."""
        torch.manual_seed(self.seed)
