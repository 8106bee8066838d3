"""Make a run that was stopped and goes on the same as one that was never stopped.

It is saved before Ctrl-C, SIGTERM, a closed terminal or an error ends it, and its random numbers
and counters follow the optimizer steps.
"""

import copy
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from deeplab_lit.runs.checkpoints import is_fast_dev_run, kept_by
from deeplab_lit.training.divergence import TrainingDiverged

ASK_EVERY = 10  # steps; several processes wait for each other to agree
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in dir(signal)]


def signals_heeded() -> list[int]:
    """Return the signals that ask a training to end.

    Without SIGHUP where it was ignored from the start (nohup); with SIGUSR1 in a job of SLURM,
    which sends it before the job's time is up (`sbatch --signal=USR1@600`).
    """
    ignored = {signal.getsignal(number) for number in SIGNALS[2:]} == {signal.SIG_IGN}
    asking = SIGNALS[:2] if ignored else list(SIGNALS)
    return [*asking, signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else asking


class SaveOnSignal(Callback):
    """On the first Ctrl-C, SIGTERM or SIGHUP: finish the optimizer step, write last.ckpt, leave.

    A checkpoint in the middle of an accumulation would lose gradients, so the step is finished
    first. A validation that is due or under way is finished too, after last.ckpt is written (by one
    process; several write it when they are done). If the process is killed meanwhile, the
    validation is done again when the run goes on, unless it was the training's last. A signal to
    one process stops all of them, once they have asked each other, every ten steps. A second
    Ctrl-C quits at once. A run that has reached its end ends as ever. Which signals there are,
    `signals_heeded` says.

    The exit code is 128 + the signal's number, as shells expect, of the highest that any process
    has received.

    An error that ends the training, as a file that cannot be read, leaves last.ckpt too, where one
    process trains: several would wait for the one that has failed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.saved = False
        self.saved_step: int | None = None  # before training starts
        self.steps_done = 0
        self.stepping = False  # weights have begun to change in this batch
        self.validating = False
        self.handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, bool]:
        """Return what a checkpoint keeps: whether it was written in the middle of a validation."""
        return {"validating": self.validating}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on from between two steps, whenever the checkpoint was written."""
        state = checkpoint["callbacks"].get(self.state_key, {})
        checkpoint["loops"] = between_steps(
            checkpoint["loops"],
            checkpoint["global_step"],
            trainer.accumulate_grad_batches,
            validate_first=state.get("validating", False),
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen; in the main thread only, where Python allows it."""
        self.steps_done = self.saved_step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self.handlers = {s: signal.signal(s, self._receive) for s in signals_heeded()}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        print("\nInterrupted: finishing this step (Ctrl-C again to quit now)", file=sys.stderr)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict, batch_idx: int
    ) -> None:
        """Save and leave, if asked to, now that a validation that was due is done."""
        # the step under which numbers are logged, which Lightning loses count of where it passes
        # over a validation that is done already
        trainer.fit_loop.epoch_loop.on_load_checkpoint(logged_steps(trainer.global_step))
        if trainer.global_step == self.steps_done:
            return
        self.steps_done = trainer.global_step
        if trainer.world_size > 1 and trainer.global_step % ASK_EVERY:
            return
        received = self.received or 0
        if trainer.world_size > 1:  # one process alone need not wait for its GPU
            mine = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if received:
            if self.saved_step != trainer.global_step:
                self._save(trainer)
            raise SystemExit(128 + received)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Note that the weights are about to change."""
        self.stepping = True

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict,
        batch_idx: int,
    ) -> None:
        """Note that the step is whole, with however many optimizers it was made."""
        self.stepping = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that a validation is under way."""
        self.validating = not trainer.sanity_checking

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save, if asked to, and not in the middle of an optimizer step.

        And alone: several processes have unequal numbers of batches.
        """
        asked = self.received is not None and not self.saved and trainer.world_size == 1
        if asked and trainer.global_step != self.steps_done:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the validation is done; the checkpoints are written after this."""
        self.validating = False

    def _save(self, trainer: Trainer) -> None:
        if (checkpoints := kept_by(trainer)) is not None:
            path = checkpoints.save_as_last(trainer)
            if trainer.is_global_zero:
                where = f"Saved step {trainer.global_step} to {path}"
                print(f"{where}; the same command with --ckpt_path last goes on", file=sys.stderr)
        self.saved, self.saved_step = True, trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop listening, before Lightning puts its own handlers in order."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save what has been trained, unless it is no use or half a step; stop listening.

        A step that ended in the error of a callback counts as half: it is not in metrics.csv yet.
        """
        sound = isinstance(exception, Exception) and not isinstance(exception, TrainingDiverged)
        trained = self.saved_step is not None and trainer.global_step != self.saved_step
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        whole = not self.stepping and batches.processed == batches.completed
        if sound and trained and whole and trainer.world_size == 1 and not is_fast_dev_run(trainer):
            try:
                self._save(trainer)
            except OSError as error:
                print(f"The last steps could not be saved: {error}", file=sys.stderr)
        self.on_train_end(trainer, pl_module)


class StepSeed(Callback):
    """Seed torch before every training batch from the run's seed, the batch and the process.

    Dropout then draws the same numbers in a run that was interrupted and resumed as in one that was
    not, on any number of processes, with no generator state in the checkpoint. (The order and the
    augmentation of the data come from positions in the stream: `loading/sampler.py`.)
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


def between_steps(
    loops: dict[str, Any], step: int, accumulate: int, *, validate_first: bool
) -> dict[str, Any]:
    """Return the counters of a checkpoint's loops as they stand between two optimizer steps.

    Lightning's are those of the moment at which the checkpoint was written (before, in or after a
    validation, at the end of an epoch or of the training), and it goes on differently from each: a
    finished run that is extended counted an epoch twice and logged one step too far.

    Args:
        loops: of a checkpoint, as Lightning has written them.
        step: optimizer steps done.
        accumulate: batches an optimizer step takes. What was written in the middle of a step goes
            on from its beginning, since the gradients are not in the checkpoint.
        validate_first: a validation was under way and is done again.
    """
    fit = copy.deepcopy(loops["fit_loop"])
    batches, epochs = fit["epoch_loop.batch_progress"], fit["epoch_progress"]
    done, total = batches["current"]["processed"], batches["total"]["processed"]
    epoch_over = batches["is_last_batch"] and batches["current"]["ready"] == done
    half = 0 if epoch_over else done % accumulate
    done, total = done - half, total - half

    epoch = epochs["current"]["processed"]
    counted = epochs["current"]["started"] == epoch  # also where training ended within an epoch
    epoch += int(epoch_over and not counted) - int(counted and not epoch_over)
    validate_first = validate_first and not half
    if epoch_over and validate_first:
        epoch -= 1  # Lightning ends the epoch after its validation
    elif epoch_over:
        done = 0
    started = epoch + 1 if done else epoch

    validated = fit["epoch_loop.val_loop.batch_progress"]["total"]["processed"]
    fit |= {
        "epoch_progress": _both(_counts(epoch) | {"ready": epoch + 1, "started": started}),
        "epoch_loop.batch_progress": {
            "total": _counts(total),
            "current": _counts(done),
            "is_last_batch": epoch_over and validate_first,
        },
        "epoch_loop.val_loop.batch_progress": {
            # Lightning's sign of an unfinished validation: a batch that was begun only
            "total": _counts(validated)
            | ({"ready": validated + 1, "started": validated + 1} if validate_first else {}),
            "current": _counts(0),
            "is_last_batch": False,
        },
    }
    fit["epoch_loop.state_dict"] = fit["epoch_loop.state_dict"] | logged_steps(step - 1)
    return loops | {"fit_loop": fit}


def logged_steps(steps: int) -> dict[str, int]:
    """Return the part of a loop's state that says under which step its numbers are logged."""
    return {"_batches_that_stepped": steps}


def _counts(number: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), number)


def _both(counts: dict[str, int]) -> dict[str, dict[str, int]]:
    return {"total": dict(counts), "current": dict(counts)}
