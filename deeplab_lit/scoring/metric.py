"""Scores from one confusion matrix over the whole data set.

As PASCAL VOC and Cityscapes define them: pixels of all images are counted together at native
resolution, void (255) is not counted, background is a class like any other. A class that is neither
in the ground truth nor in the predictions has no IoU and stays out of the mean; one that is
predicted but never true has IoU 0 and stays in.
"""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from deeplab_lit.types import VOID


class Scores(NamedTuple):
    """Fractions in 0…1.

    Attributes:
        miou: mean IoU over the classes that have one.
        iou: (C,) IoU of each class, NaN where it has none.
        pixel_accuracy: share of pixels that are right.
        mean_accuracy: mean over the classes in the ground truth of the share of their pixels that
            are right.
        fw_iou: IoU weighted by the classes' frequency in the ground truth.
        confusion: (C,C) int64, pixels by true class (row) and predicted class (column).
        loss: mean cross-entropy of the labeled pixels (`training/loss.py`), no fraction; None where
            there are labels only, as after the CRF.
    """

    miou: float
    iou: Tensor
    pixel_accuracy: float
    mean_accuracy: float
    fw_iou: float
    confusion: Tensor
    loss: float | None = None

    def named(self, prefix: str, classes: Iterable[str]) -> dict[str, float]:
        """As they are logged, <prefix>/miou, <prefix>/iou/<class> and so on; no absent class."""
        names = ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou")
        values = {f"{prefix}/{name}": getattr(self, name) for name in names}
        values |= {} if self.loss is None else {f"{prefix}/loss": self.loss}
        iou = zip(classes, self.iou.tolist(), strict=True)
        return values | {f"{prefix}/iou/{name}": value for name, value in iou if value == value}


def iou_of(confusion: Tensor) -> Tensor:
    """IoU of each class: pixels (…,C,C) by true and predicted class → (…,C), NaN where absent."""
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    return hits / (confusion.sum(-1) + confusion.sum(-2) - hits)  # 0/0 = NaN


class SegmentationScores(MulticlassJaccardIndex):
    """torchmetrics' Jaccard index, with the other scores of the same confusion matrix.

    Update it with predictions and masks (B,H,W). `compute` synchronizes the processes once.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="macro", ignore_index=VOID, validate_args=False)

    def compute(self) -> Scores:
        """All scores of what has been counted; NaN where nothing has."""
        confusion = self.confmat.cpu()
        hits = confusion.diag().double()
        truth = confusion.sum(1).double()
        iou = iou_of(confusion)
        present = truth > 0
        weighted = (truth[present] * iou[present]).sum() / truth.sum()
        return Scores(
            miou=iou.nanmean().item(),  # as torchmetrics has it, in double precision
            iou=iou,
            pixel_accuracy=(hits.sum() / truth.sum()).item(),
            mean_accuracy=(hits[present] / truth[present]).mean().item(),
            fw_iou=weighted.item(),
            confusion=confusion,
        )
