"""When training on is no use: the loss is no number, or one class is all that is predicted."""

from collections.abc import Sequence

import torch
from torch import Tensor

from deeplab_lit.errors import UserError
from deeplab_lit.training.metric import Scores


class TrainingDiverged(UserError, RuntimeError):
    """The loss is no number any more; says when, and what helps."""


def check_finite(loss: Tensor, step: int) -> None:
    """Raise `TrainingDiverged` unless the loss is a number."""
    if not torch.isfinite(loss):
        raise TrainingDiverged(
            f"the loss is {loss.item()} at step {step}: a lower --model.lr helps most often, then "
            "float32 (--trainer.precision 32-true). Checkpoints written before are kept."
        )


def check_collapse(scores: Scores, classes: Sequence[str], share: float, step: int) -> None:
    """Raise `TrainingDiverged` where one class takes nearly all predictions, but not in the truth.

    Args:
        scores: of a whole validation.
        classes: their names.
        share: of all predictions, above which there is nothing left to hope for; 1 never raises.
        step: optimizer steps done, for the message.
    """
    truth, predicted = (scores.confusion.sum(axis).double() for axis in (1, 0))
    truth, predicted = truth / truth.sum(), predicted / predicted.sum()
    most = int(predicted.argmax())
    if predicted[most] > share >= truth[most]:
        raise TrainingDiverged(
            f"at step {step} {100 * predicted[most]:.2f} % of all predictions are "
            f"{list(classes)[most]}, which has {100 * truth[most]:.2f} % of the validation set's "
            "pixels: the training has collapsed. Look at the masks (prepare check, or the table "
            "before the first step); a lower --model.lr helps often. --model.collapse_share 1 goes "
            "on all the same. Checkpoints written before are kept."
        )
