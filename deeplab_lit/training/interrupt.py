"""Ctrl-C and SIGTERM save the run before it ends."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveOnSignal(Callback):
    """On the first Ctrl-C or SIGTERM: finish the optimizer step, write last.ckpt, leave.

    A checkpoint in the middle of an accumulation would lose gradients, so the step is finished
    first. A signal to one process stops all of them. During validation a single process leaves at
    once (the validation is not repeated after resuming); several finish it first. A second Ctrl-C
    quits without saving.

    The exit code is 128 + the signal's number, as shells expect.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.steps_done = 0
        self.handlers: dict[int, object] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen; in the main thread only, where Python allows it."""
        self.steps_done = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self.handlers = {s: signal.signal(s, self._receive) for s in SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        print("\nInterrupted: saving after this step (Ctrl-C again to quit now)", file=sys.stderr)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict,
        batch: dict,
        batch_idx: int,
    ) -> None:
        """Save and leave, if asked to, between two optimizer steps."""
        if trainer.global_step == self.steps_done:
            return
        self.steps_done = trainer.global_step
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self._leave(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save and leave, if asked to and alone."""
        if self.received is not None and trainer.world_size == 1:
            self._leave(trainer)

    def _leave(self, trainer: Trainer) -> None:
        checkpoints = trainer.checkpoint_callback
        folder = checkpoints.dirpath if checkpoints else trainer.default_root_dir
        path = Path(folder, "last.ckpt")
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            print(f"Saved step {trainer.global_step} to {path}", file=sys.stderr)
        raise SystemExit(128 + (self.received or signal.SIGTERM))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop listening."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}
