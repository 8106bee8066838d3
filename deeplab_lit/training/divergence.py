"""Stop trainings that diverge (weights that are no numbers) or collapse to one class.

Every training begins by calling nearly everything by its most frequent class, and where the others
are rare or the learning rate is low or high that may last long, so a validation alone proves
nothing. The rule against collapse, of which this file is the only place:

- A validation is *stuck* if one class swallows the others (more than `collapse_share` of all other
  classes' pixels are taken for it) and the loss on the validation set is no lower than what the
  classes' frequencies alone would give, their entropy (within 2 %). A network that has learned
  anything from the images is below, even where no other class wins a pixel yet.
- A row of them begins anew whenever the loss falls by 2 %.
- Two of a row that lie a quarter of the training's steps apart are warned of.
- After the warning the training is ended at the third of the row or a later one, once half of the
  steps, and twenty, are done, if the network is sure of what is wrong: the loss is twice the
  entropy and twice log C, the loss of equal chances for C classes; or twice the entropy and twice
  what it was when the row began. Where the network only guesses (a plateau near the entropy, near
  log C, or, where the training set has other frequencies, between) it may still begin to learn, and
  goes on. At its last step nothing is left to end: that it has found nothing is said.
- val/loss is the plain cross-entropy, whatever is trained with. Who balances, weights or mines
  classes unlearns their frequencies, and the loss may rise from the entropy to log C. Such a
  training is ended for twice log C alone.

Weights that are no numbers never recover, and end the training where they are seen. A loss that is
no number alone does not: mixed precision skips such a step.

Tried on 30 trainings of 120 steps, from scratch, with a validation every 4 or 8 steps (some are in
tests/training/test_divergence.py). Go on: 1.2 % foreground, eight images, one image, 98 %
background, each at five learning rates, two of them so low that nothing is found; and one class all
that is predicted because the rate is 100 times too high. End at a little over half: pseudo-labels
of one class alone, at two rates, of rare and of frequent classes. End at once: a rate that gives no
number. And on 24 trainings of 60 steps, 2 % foreground: the plain loss, Balanced, ClassWeighted and
OHEM go on, at four or five rates each. With pseudo-labels of one class alone Balanced goes on after
a warning, and the plain loss ends.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from deeplab_lit.errors import UserError
from deeplab_lit.scoring.metric import Scores

FALLS = 0.98  # a loss below so much of another one is lower
SURE = 2.0  # so many times the loss of a guess is no guess any more
ROW = 3  # stuck validations
DONE, LASTS = 1 / 2, 1 / 4  # of the training's steps
LEAST = 20  # optimizer steps: to end what is shorter spares nobody anything


class TrainingDiverged(UserError, RuntimeError):
    """A training has diverged or collapsed; says when, why, and what helps."""


class Stuck(NamedTuple):
    """The row of stuck validations up to now; written into checkpoints.

    Attributes:
        validations: how many.
        since: optimizer steps done at the first.
        loss: of the first, which is the lowest.
        warned: optimizer steps done when it was warned of; None before.
    """

    validations: int = 0
    since: int = 0
    loss: float = math.inf
    warned: int | None = None


def check_share(collapse_share: float) -> None:
    """Refuse a share of pixels above which no class can swallow the others.

    Raises:
        ValueError: it is not in 0…1, or 0.
    """
    if not 0 < collapse_share <= 1:
        raise ValueError(
            f"collapse_share is out of range: {collapse_share}, expected more than 0, at most 1"
        )


def all_finite(net: nn.Module) -> bool:
    """Tell whether all weights and statistics of a network are numbers."""
    return all(bool(torch.isfinite(value).all()) for value in net.state_dict().values())


def diverged(loss: float, step: int) -> TrainingDiverged:
    """Build the error for weights that are no numbers any more.

    Args:
        loss: the latest; NaN where it is not known.
        step: optimizer steps done.
    """
    return TrainingDiverged(
        f"the loss is {loss} at step {step}, and the weights are no numbers any more: a lower "
        "--model.lr helps most often, then float32 (--trainer.precision 32-true). Checkpoints "
        "written before are kept."
    )


def swallowing(confusion: Tensor) -> tuple[int, float]:
    """Find the class that the others are taken for most, and the share of their pixels.

    Args:
        confusion: (C,C) pixels by true and predicted class.

    Returns:
        Its index; and the share, from 0 to 1, of the pixels of all other classes that are
        predicted to be of it; 0 where there are no other pixels.
    """
    confusion = confusion.double()
    others = confusion.sum() - confusion.sum(1)
    taken = (confusion.sum(0) - confusion.diag()) / others.clamp(min=1)
    return int(taken.argmax()), taken.max().item()


def entropy(confusion: Tensor) -> float:
    """Compute the lowest loss of a network that knows nothing but the classes' frequencies.

    Args:
        confusion: (C,C) pixels by true and predicted class.

    Returns:
        −Σ f log f over the classes' shares f of the true pixels.
    """
    share = confusion.sum(1).double()
    share = share[share > 0] / share.sum()
    return -(share * share.log()).sum().item()


def loss_of(scores: Scores) -> float:
    """Return the loss of a whole validation; NaN where it was not counted."""
    return math.nan if scores.loss is None else scores.loss


def watch(before: Stuck, scores: Scores, collapse_share: float, step: int, steps: int) -> Stuck:
    """Find the row of stuck validations after another validation.

    Args:
        before: the row so far.
        scores: of the whole validation, with its loss.
        collapse_share: above which share of all other classes' pixels a class swallows them; 1 is
            above all.
        step: optimizer steps done.
        steps: optimizer steps of the whole training.
    """
    loss = loss_of(scores)
    _, share = swallowing(scores.confusion)
    if share <= collapse_share or loss < FALLS * entropy(scores.confusion):
        return Stuck()
    if not before.validations or loss < FALLS * before.loss:
        return Stuck(1, step, loss)
    row = before._replace(validations=before.validations + 1)
    if row.warned is None and step - row.since >= LASTS * steps:
        row = row._replace(warned=step)
    return row


def check_collapse(
    stuck: Stuck,
    scores: Scores,
    classes: Sequence[str],
    step: int,
    steps: int,
    *,
    guesses_frequencies: bool = True,
) -> None:
    """Warn of a row of stuck validations, or end the training.

    Args:
        stuck: the row, the latest validation included.
        scores: of the latest.
        classes: their names.
        step: optimizer steps done.
        steps: optimizer steps of the whole training.
        guesses_frequencies: the loss trained with is the plain cross-entropy, which teaches who
            knows nothing else the classes' frequencies.

    Raises:
        TrainingDiverged: there is nothing left to hope for.
    """
    if not stuck.validations:
        return
    index, share = swallowing(scores.confusion)
    guess = entropy(scores.confusion)
    truth = (scores.confusion.sum(1)[index] / scores.confusion.sum()).item()
    state = (
        f"at step {step} of {steps} {100 * share:.2f} % of the other classes' pixels are taken for "
        f"{classes[index]} (which has {100 * truth:.2f} % of the validation set's pixels), in "
        f"{stuck.validations} validation{'s' * (stuck.validations > 1)} in a row; val/loss is "
        f"{loss_of(scores):.4g}, no lower than at step {stuck.since}, and the classes' frequencies "
        f"alone would give {guess:.4g}"
    )
    helps = (
        "Look at the masks (prepare check, or the table before the first step); a lower --model.lr "
        "helps often."
    )
    lost = stuck.validations >= ROW and stuck.warned not in (None, step)
    is_late = max(DONE * steps, LEAST) <= step < steps
    rose = guesses_frequencies and loss_of(scores) >= SURE * max(guess, stuck.loss)
    is_sure = rose or loss_of(scores) >= SURE * max(guess, math.log(len(classes)))
    if lost and is_late and is_sure:
        raise TrainingDiverged(
            f"{state}. The training has collapsed. {helps} --model.collapse_share 1 goes on all "
            "the same. Checkpoints written before are kept."
        )
    if step >= steps and stuck.since < step:
        rank_zero_warn(f"{state}. The training has found nothing. {helps}")
    elif stuck.warned == step:
        rank_zero_warn(f"{state}. The training goes on for now. {helps}")
