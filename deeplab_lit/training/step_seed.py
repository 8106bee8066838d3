"""Random numbers and counters by optimizer step: a resumed run goes on as one never stopped."""

import copy
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


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
