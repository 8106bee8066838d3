"""Losses beside the authors' cross-entropy, for labels that are rare, hard or not to be trusted.

Each is the loss of one scale, from logits and targets of one grid to a scalar, and takes its place
in `loss.deeplab_loss`: the sum over scales and their maximum stays, and `loss_size` says where
logits and labels meet. None gives a value that is no number for logits that are numbers, in float16
and bfloat16 too: without a labeled pixel each is 0, with gradients of 0.

Letters: B batch · C classes · h×w grid · n labeled pixels of a batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_lit.data.class_weights import Rule, read_class_weights
from deeplab_lit.types import VOID

FLOOR = 1e-4  # DSRG's, added to every probability
Variant = Literal["hrnet", "toolbox", "bisenet"]


class Loss(nn.Module, ABC):
    """A loss that may have to know the classes; any other nn.Module is a loss too."""

    def check_classes(self, names: Sequence[str]) -> None:
        """Refuse classes that the loss was not meant for, before the first step.

        Args:
            names: of the network's classes, in the order of its outputs.

        Raises:
            ValueError: says what does not fit.
        """

    @abstractmethod
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: (B,C,h,w).
            target: (B,h,w) int64, class indices and 255 for void.
        """


class Balanced(Loss):
    """Mean over background pixels plus mean over foreground pixels, of each image.

    Huang et al., DSRG (CVPR 2018), "balanced seed loss"; speedinghzl/DSRG, pylayers.py: 1e-4 is
    added to the probabilities, which are brought to the sum 1 again; the two means of an image are
    averaged over the images of the batch and added. An image without background, or without
    foreground, adds 0 and stays in the average.

    DSRG has one map of logits. Of networks with several scales authors write only that the loss was
    "similar to DSRG"; whether it took the place of each scale's cross-entropy, as here, they do not
    state.

    Args:
        background: index of the background's class; all others are foreground.
    """

    def __init__(self, background: int = 0) -> None:
        super().__init__()
        if background < 0:
            raise ValueError(f"background is out of range: {background}, expected 0 or more")
        self.background = background

    def check_classes(self, names: Sequence[str]) -> None:
        """Refuse an index that no class has; say which class it is, if not called background."""
        if self.background >= len(names):
            raise ValueError(
                f"background is out of range: {self.background}, expected 0…{len(names) - 1}, the "
                "indices of the classes"
            )
        if "background" not in (name := names[self.background]).lower():
            rank_zero_warn(
                f"the loss Balanced weighs class {self.background}, {name}, like all other classes "
                "together; another index of the background is set by --model.loss.background"
            )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B,C,h,w) and targets (B,h,w), class indices and 255."""
        valid = target != VOID
        classes = logits.shape[1]
        truth = torch.where(valid, target, 0).long().unsqueeze(1)
        probability = logits.float().softmax(1).gather(1, truth).squeeze(1)
        losses = math.log(1 + classes * FLOOR) - (probability + FLOOR).log()
        is_background = target == self.background
        terms = [_mean_of_each(losses, part) for part in (is_background, valid & ~is_background)]
        return torch.stack(terms).sum(0).mean()


def soft_cross_entropy(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Return the mean of −Σ p·log softmax(logits) over the pixels that count; 0 where none does.

    Args:
        logits: (B,C,h,w).
        target: (B,C,h,w), the probability p of each class.
        counts: (B,h,w) bool.
    """
    losses = F.cross_entropy(logits.float(), target.float(), reduction="none")
    return torch.where(counts, losses, 0).sum() / counts.sum().clamp(min=1)


def _mean_of_each(losses: Tensor, part: Tensor) -> Tensor:
    """Return the mean over a part of each image's pixels, (B,); 0 where it has none."""
    total = torch.where(part, losses, 0).sum((1, 2))
    return total / part.sum((1, 2)).clamp(min=1)


class ClassWeighted(Loss):
    """Cross-entropy with a weight for each class: Σ w·loss / Σ w over the labeled pixels.

    It is torch's mean of `cross_entropy(weight=…)`, 0 where the weights add up to 0.

    Args:
        weights: of the classes, in their order.
        file: of `prepare check --weights`, instead; its classes must be the network's.
        rule: with `file`, which of its weights: "enet", 1/ln(1.02 + share of all pixels), or
            "median_frequency", median(f)/f with f the share in the images that hold the class.

    Attributes:
        weights: as used, of the list or the file.
    """

    def __init__(
        self,
        weights: list[float] | None = None,
        file: str | None = None,
        rule: Rule | None = None,
    ) -> None:
        super().__init__()
        if (weights is None) == (file is None):
            raise ValueError(
                "ClassWeighted needs weights, a list with one for each class, or file, which "
                f"prepare check --weights writes: {'neither' if file is None else 'both'} given"
            )
        if (file is None) != (rule is None):
            raise ValueError(
                f"file and rule ({', '.join(get_args(Rule))}) go together: the rule says which of "
                "the file's weights count"
            )
        self.source, self.names = file, None  # no path counts when a run goes on
        if file is not None and rule is not None:
            self.names, weights = read_class_weights(file, rule)
        self.weights = [float(weight) for weight in weights or ()]
        if not all(0 <= weight < math.inf for weight in self.weights) or not any(self.weights):
            raise ValueError(
                f"weights must be numbers of 0 or more, not all of them 0, got {self.weights}"
            )
        # not in checkpoints: the list itself is what a training is compared by
        self.register_buffer("values", torch.tensor(self.weights), persistent=False)

    def check_classes(self, names: Sequence[str]) -> None:
        """Refuse weights of other classes: another number, or a file's other names or order."""
        if self.names is None and len(self.weights) != len(names):
            raise ValueError(
                f"ClassWeighted has {len(self.weights)} weights, but there are {len(names)} classes"
            )
        if self.names is not None and list(self.names) != list(names):
            pairs = enumerate(zip([*self.names, None], [*names, None], strict=False))
            index, (counted, trained) = next((i, pair) for i, pair in pairs if len({*pair}) > 1)
            raise ValueError(
                f"{self.source} has the weights of other classes, or in another order: its "
                f"{len(self.names)} classes have {counted} where the network's {len(names)} have "
                f"{trained}, at index {index}. Count this data set: prepare check --weights FILE"
            )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B,C,h,w) and targets (B,h,w), class indices and 255."""
        weights = self.get_buffer("values").float()
        total = F.cross_entropy(
            logits.float(), target.long(), weights, ignore_index=VOID, reduction="sum"
        )
        valid = target != VOID
        of_pixels = torch.where(valid, weights[torch.where(valid, target, 0).long()], 0)
        return total / of_pixels.sum().clamp(min=torch.finfo(torch.float32).tiny)


class OHEM(Loss):
    """Online hard example mining: the mean cross-entropy of the pixels that are hard.

    Hard are pixels whose true class has a low probability p; three released forms of it are known
    by the same name. Of the n labeled pixels of a batch, in ascending order of p:

    - "hrnet" (HRNet-Semantic-Segmentation): p < max(threshold, p[min(min_kept, n − 1)]), counted
      from 0;
    - "toolbox" (pytorch-segmentation-toolbox, and UniMatch): p ≤ max(threshold, p[min_kept − 1]);
      all where min_kept ≥ n. The toolbox itself looks at a map an eighth as large; here, as in
      UniMatch, all pixels count;
    - "bisenet" (CoinCheung/BiSeNet): p < threshold, or the min_kept lowest if those are more.

    Where no pixel is hard the loss is 0.

    Args:
        threshold: probability below which a pixel is hard. All three: 0.7; HRNet's files for
            Cityscapes: 0.9.
        min_kept: least number of pixels kept of a batch, on the grid of `loss_size`. Released, for
            whole crops: 100,000 (HRNet, toolbox), 131,072 (HRNet's files), 200,000 (UniMatch).
            None: n/16, rounded down, BiSeNet's.
        variant: which form.
    """

    def __init__(
        self, threshold: float = 0.7, min_kept: int | None = None, variant: Variant = "hrnet"
    ) -> None:
        super().__init__()
        if not 0 < threshold <= 1:
            raise ValueError(
                f"threshold is out of range: {threshold}, expected more than 0, at most 1"
            )
        if min_kept is not None and min_kept < 0:
            raise ValueError(f"min_kept is out of range: {min_kept}, expected 0 or more")
        if variant not in get_args(Variant):
            raise ValueError(
                f"variant must be one of {', '.join(get_args(Variant))}, got {variant!r}"
            )
        self.threshold, self.min_kept, self.variant = threshold, min_kept, variant

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B,C,h,w) and targets (B,h,w), class indices and 255."""
        losses = F.cross_entropy(
            logits.float(), target.long(), ignore_index=VOID, reduction="none"
        ).flatten()
        if self.min_kept is not None and self.min_kept >= len(losses):
            rank_zero_warn(
                f"OHEM keeps every pixel: --model.loss.min_kept is {self.min_kept}, and a batch "
                "has no more at one of the scales; with --model.loss_size grid it has a 64th of "
                "the crops' pixels"
            )
        hardest = losses.sort(descending=True).values  # void pixels, which have 0, at the end
        number = (target != VOID).sum()
        with torch.no_grad():
            kept = self._kept((-hardest).exp(), number)
        is_kept = torch.arange(len(hardest), device=hardest.device) < kept
        return torch.where(is_kept, hardest, 0).sum() / kept.clamp(min=1)

    def _kept(self, ascending: Tensor, number: Tensor) -> Tensor:
        """Return how many pixels are kept, of all (P,) in ascending order of p, `number` labeled.

        Numbers stay on the device: nothing waits for it.
        """
        least = number // 16 if self.min_kept is None else torch.full_like(number, self.min_kept)
        last = (number - 1).clamp(min=0)
        if self.variant == "bisenet":
            kept = torch.maximum((ascending < self.threshold).sum(), least)
        elif self.variant == "toolbox":
            at = torch.minimum(least - 1, last).clamp(min=0)
            bound = torch.where(least > 0, ascending[at], 0).clamp(min=self.threshold)
            kept = torch.where(least < number, (ascending <= bound).sum(), number)
        else:
            bound = ascending[torch.minimum(least, last)].clamp(min=self.threshold)
            kept = (ascending < bound).sum()
        return torch.minimum(kept, number)
