"""Scores from one confusion matrix over the whole data set.

As PASCAL VOC and Cityscapes define them: pixels of all images are counted together at native
resolution, void (255) is not counted, background is a class like any other. A class that is neither
in the ground truth nor in the predictions has no IoU and stays out of the mean; one that is
predicted but never true has IoU 0 and stays in.

Letters: B batch · C classes · H×W image.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.utilities import dim_zero_cat

from deeplab_lit.scoring.subsets import NO_SUBSETS, Subsets
from deeplab_lit.types import VOID

ROWS = 128  # of an image, whose loss is computed at once
MOST = 103.28  # −log of the smallest float32: the loss where a probability was rounded to 0


def iou_of(confusion: Tensor) -> Tensor:
    """Return the IoU of each class, (…,C) double in 0…1, NaN where it is absent.

    Args:
        confusion: (…,C,C) pixels by true class (row) and predicted class (column); or (…,C,C+1),
            the last column being pixels that were given no class, which their true class misses.
    """
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    predicted = confusion.sum(-2)[..., : hits.shape[-1]]
    return hits / (confusion.sum(-1) + predicted - hits)  # 0/0 = NaN


def mean_iou(confusion: Tensor) -> float:
    """Return the mean IoU over the classes that have one, as torchmetrics does in double."""
    return iou_of(confusion).nanmean().item()


def pixel_accuracy(confusion: Tensor) -> float:
    """Return the share of the labeled pixels that are right."""
    return (confusion.diag().double().sum() / confusion.sum().double()).item()


def mean_accuracy(confusion: Tensor) -> float:
    """Return the mean over the true classes of the share of their pixels that are right."""
    true = confusion.sum(1).double()
    return (confusion.diag().double()[true > 0] / true[true > 0]).mean().item()


def frequency_weighted_iou(confusion: Tensor) -> float:
    """Return the mean IoU over the true classes, weighted by their share of the true pixels."""
    true = confusion.sum(1).double()
    weighted = true[true > 0] * iou_of(confusion)[true > 0]
    return (weighted.sum() / true.sum()).item()


class Scalar(NamedTuple):
    """A score that is one number.

    Attributes:
        title: its name on the screen.
        of: the confusion matrix (C,C) int64 on the CPU → a fraction in 0…1, NaN where undefined.
    """

    title: str
    of: Callable[[Tensor], float]


# What is logged as val/<name>, kept in results.json under its name and shown on the screen
SCALARS = {
    "miou": Scalar("mIoU", mean_iou),
    "pixel_accuracy": Scalar("pixel accuracy", pixel_accuracy),
    "mean_accuracy": Scalar("mean accuracy", mean_accuracy),
    "fw_iou": Scalar("fw iou", frequency_weighted_iou),
}


class Scores:
    """All scores of a confusion matrix.

    Args:
        confusion: (C,C) int64 on the CPU, pixels by true class (row) and predicted class (column);
            or (C,C+1), see `iou_of`.
        loss: mean cross-entropy of the labeled pixels (`PixelLoss`); None where there are labels
            only, as after the CRF.
        subsets: of the classes, to be scored too, and by which rule.

    Attributes:
        iou: (C,) double, IoU of each class in 0…1; NaN for a class that is absent.
        iou_in_subsets: (C,) the same of the pixels that count by the rule of `subsets`.
        scalars: value of each score in SCALARS, and of each subset's mean IoU, as "miou16".
    """

    def __init__(
        self, confusion: Tensor, loss: float | None = None, subsets: Subsets = NO_SUBSETS
    ) -> None:
        self.confusion = confusion
        self.loss = loss
        self.subsets = subsets
        self.iou = iou_of(confusion)
        self.iou_in_subsets = iou_of(subsets.counted(confusion))
        means = {
            f"miou{name}": self.iou_in_subsets[list(members)].nanmean().item()
            for name, members in subsets.members.items()
        }
        first, *others = ((name, scalar.of(confusion)) for name, scalar in SCALARS.items())
        self.scalars = dict([first, *means.items(), *others])  # the mean IoU first, then its kin

    @property
    def miou(self) -> float:
        """Mean IoU in 0…1 over the classes that have one; NaN where none has."""
        return self.scalars["miou"]

    def named(self, prefix: str, classes: Iterable[str]) -> dict[str, float]:
        """Return what is logged: <prefix>/miou, <prefix>/iou/<class> …, no absent class."""
        values = {f"{prefix}/{name}": value for name, value in self.scalars.items()}
        values |= {} if self.loss is None else {f"{prefix}/loss": self.loss}
        iou = zip(classes, self.iou.tolist(), strict=True)
        return values | {f"{prefix}/iou/{name}": value for name, value in iou if value == value}

    def as_dict(self, classes: Iterable[str]) -> dict[str, Any]:
        """Return what results.json holds: plain numbers, None for what is undefined."""
        scalars = {name: finite(value) for name, value in self.scalars.items()}
        present = int((~self.iou.isnan()).sum())
        names = list(classes)
        return {
            "miou": scalars["miou"],
            "classes_in_miou": present,
            **scalars,
            **({} if self.loss is None else {"loss": finite(self.loss)}),
            "iou": dict(zip(names, map(finite, self.iou.tolist()), strict=True)),
            **({"subsets": self._subsets_as_dict(names)} if self.subsets.members else {}),
        }

    def _subsets_as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return by which rule subsets are scored, and of each the IoU of its classes."""
        values = self.iou_in_subsets.tolist()
        iou = {
            subset: {names[i]: finite(values[i]) for i in members}
            for subset, members in self.subsets.members.items()
        }
        return {"rule": self.subsets.rule, "iou": iou}


def finite(value: float) -> float | None:
    """Return a number for JSON: None for NaN and infinity, which JSON does not know."""
    return value if math.isfinite(value) else None


class SegmentationScores(MulticlassJaccardIndex):
    """torchmetrics' Jaccard index, with the other scores of the same confusion matrix.

    Update it with predictions and masks (B,H,W). `compute` adds the counts of all processes.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="macro", ignore_index=VOID, validate_args=False)

    def compute(self) -> Scores:  # type: ignore[override]  # torchmetrics' gives the mean alone
        """Return all scores of the pixels counted so far; NaN where there are none."""
        return Scores(self.confmat.to("cpu", copy=True))


class PixelLoss(Metric):
    """Measure val/loss: the mean cross-entropy of all labeled pixels of the validation set.

    Of each pixel −log of the probability of its true class (natural logarithm), from the logits
    that are scored: at the image's own size, fused over scales, windows and views. The mean is over
    the pixels of all images together, as the scores are; void does not count. The loss of training
    is another one: on the feature grid, and summed over every scale and their maximum, so that with
    the paper's three scales it is about four times as high.

    Every image's share is the same in any batch, and they are added without rounding, so the value
    depends neither on the batch size nor on the number of processes.
    """

    full_state_update = False
    sums: list[Tensor]
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", [], dist_reduce_fx="cat")
        self.add_state("pixels", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, mask: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (B,C,H,W).
            mask: (B,H,W), class indices and 255 for void.
        """
        rows = zip(logits.split(ROWS, dim=2), mask.split(ROWS, dim=1), strict=True)
        sums = [self._sums(*part) for part in rows]  # no copy of all logits at once
        self.sums.append(torch.stack(sums, dim=1).flatten())
        self.pixels += (mask != VOID).sum()

    def _sums(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the sum over each image's pixels, (B,) float32."""
        images = zip(logits.split(1), mask.long().split(1), strict=True)
        losses = [
            F.cross_entropy(image.float(), target, ignore_index=VOID, reduction="none")
            for image, target in images
        ]
        return torch.stack([x.nan_to_num(nan=torch.nan, posinf=MOST).sum() for x in losses])

    def compute(self) -> float:
        """Return the mean over all processes; NaN where no pixel is labeled."""
        if not self.pixels:
            return math.nan
        return math.fsum(dim_zero_cat(self.sums).tolist()) / self.pixels.item()
