"""Ctrl-C and SIGTERM save the run before it ends."""

import signal
import sys
import threading
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deeplab_lit.training.checkpoints import BestAndLast

ASK_EVERY = 10  # steps; several processes wait for each other to agree
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveOnSignal(Callback):
    """On the first Ctrl-C or SIGTERM: finish the optimizer step, write last.ckpt, leave.

    A checkpoint in the middle of an accumulation would lose gradients, so the step is finished
    first. A validation that is due or under way is finished too, after last.ckpt is written (by one
    process; several write it when they are done): its score would be missing otherwise, as it is
    where the process is killed meanwhile. A signal to one process stops all of them, once they
    have asked each other, every ten steps. A second
    Ctrl-C quits at once. A run that has reached its end ends as ever.

    The exit code is 128 + the signal's number, as shells expect.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.saved = False
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
        print("\nInterrupted: finishing this step (Ctrl-C again to quit now)", file=sys.stderr)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict, batch_idx: int
    ) -> None:
        """Leave, now that the last step is logged and a validation that was due is done."""
        if self.saved:
            raise SystemExit(128 + (self.received or signal.SIGTERM))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict,
        batch: dict,
        batch_idx: int,
    ) -> None:
        """Save, if asked to, between two optimizer steps."""
        if trainer.global_step == self.steps_done:
            return
        self.steps_done = trainer.global_step
        if trainer.world_size > 1 and trainer.global_step % ASK_EVERY:
            return
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self._save(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save, if asked to and alone: several processes have unequal numbers of batches."""
        if self.received is not None and not self.saved and trainer.world_size == 1:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        for checkpoints in trainer.checkpoint_callbacks:
            if isinstance(checkpoints, BestAndLast):
                path = checkpoints.save_as_last(trainer)
                if trainer.is_global_zero:
                    print(f"Saved step {trainer.global_step} to {path}", file=sys.stderr)
        self.saved = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop listening, before Lightning puts its own handlers in order."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop listening."""
        self.on_train_end(trainer, pl_module)
