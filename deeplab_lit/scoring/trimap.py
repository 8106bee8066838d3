"""Scores of the pixels near borders, by their distance from them.

DeepLabv2, Sec. 4.1.2 and Fig. 10: mIoU over the pixels within a narrow band around the void pixels
that separate objects, as a function of the band's width. Where a data set has no such pixels, the
borders of the classes take their place.

Letters: B batch · C classes · H×W image · W band widths.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics import Metric

from deeplab_lit.atomic import atomic_write
from deeplab_lit.pictures.charts import band_curves
from deeplab_lit.scoring.evaluation import Around, ScoredModule
from deeplab_lit.scoring.metric import Scores, finite, iou_of
from deeplab_lit.scoring.observer import Observer, ScoredImage
from deeplab_lit.types import VOID

WIDTHS = range(1, 41)
NAMES = {"miou": "mIoU", "miou_crf": "mIoU after the CRF"}


def distance(mask: np.ndarray, around: Around) -> np.ndarray:
    """Return each pixel's distance in pixels from the nearest border, (H,W) float32.

    Args:
        mask: (H,W) uint8, the truth.
        around: "void": distance from the nearest void pixel; "classes": from the nearest pixel
            of another class, void left out. Where an image has none, infinity.
    """
    if around == "void":
        return _distance_outside(mask != VOID)
    nearest = np.full(mask.shape, np.inf, np.float32)
    for value in np.unique(mask[mask != VOID]):
        inside = mask == value
        nearest[inside] = _distance_outside(inside | (mask == VOID))[inside]
    return nearest


def _distance_outside(inside: np.ndarray) -> np.ndarray:
    if inside.all():
        return np.full(inside.shape, np.inf, np.float32)
    return cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


class TrimapScores(Metric):
    """Measure mIoU inside bands around borders, by one confusion matrix a width of the whole set.

    `compute` gives mIoU (W,), NaN where a band has no pixel. A band holds the pixels whose distance
    from the border is at most its width.

    Args:
        num_classes: C.
        widths: in pixels, ascending.
    """

    rings: Tensor

    def __init__(self, num_classes: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = np.asarray(widths)
        self.num_classes = num_classes
        shape = (len(widths), num_classes, num_classes + 1)  # the last column: no class
        self.add_state("rings", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, labels: Tensor, mask: Tensor, distances: np.ndarray) -> None:
        """Count an image: pixels between one width and the next, by true and predicted class.

        Args:
            labels: (H,W) predicted; void where no class is.
            mask: (H,W) truth.
            distances: (H,W), see `distance`.
        """
        predicted, truth = labels.cpu().numpy(), mask.cpu().numpy()
        ring = np.searchsorted(self.widths, distances)
        counted = (ring < len(self.widths)) & (truth != VOID)
        predicted = np.where(predicted == VOID, self.num_classes, predicted)
        index = tuple(part[counted].astype(np.int64) for part in (ring, truth, predicted))
        flat = np.ravel_multi_index(index, self.rings.shape)
        counts = np.bincount(flat, minlength=self.rings.numel())
        self.rings += torch.from_numpy(counts).view(self.rings.shape).to(self.rings.device)

    def compute(self) -> Tensor:
        """Return the mIoU of each band, (W,) double in 0…1."""
        return iou_of(self.rings.cumsum(0).cpu()).nanmean(-1)


class Trimap(Observer):
    """Write trimap.csv and trimap.png: mIoU by the band's width, before and after the CRF.

    Args:
        folder: the run folder.
        around: see `distance`.
    """

    def __init__(self, folder: Path, around: Around) -> None:
        self.folder = folder
        self.around = around
        self.scores: dict[str, TrimapScores] = {}

    def start(self, trainer: Trainer, network: ScoredModule) -> None:
        """Begin to count."""
        number = len(network.classes)
        self.scores = {f"miou{s}": TrimapScores(number).to(network.device) for s in ("", "_crf")}

    def see(self, image: ScoredImage) -> None:
        """Count an image; its distances are measured once for both predictions."""
        distances = distance(image.mask.cpu().numpy(), self.around)
        for suffix, labels in image.predictions.items():
            self.scores[f"miou{suffix}"].update(labels, image.mask, distances)

    def finish(self, trainer: Trainer, scores: Scores, refined: Scores | None) -> dict[str, Any]:
        """Score on all processes together, write, and return the curves."""
        names = ["miou", "miou_crf"] if refined is not None else ["miou"]
        curves = {name: self.scores[name].compute().tolist() for name in names}
        if trainer.is_global_zero:
            self._write(curves)
        values = {name: [finite(value) for value in curve] for name, curve in curves.items()}
        return {"trimap": {"around": self.around, "width": list(WIDTHS), **values}}

    def _write(self, curves: dict[str, list[float]]) -> None:
        with atomic_write(self.folder / "trimap.csv") as place, place.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["width", *curves, "around"])
            rows = zip(WIDTHS, *curves.values(), strict=True)
            writer.writerows([*row, self.around] for row in rows)
        named: dict[str, Sequence[float]] = {NAMES[name]: curve for name, curve in curves.items()}
        band_curves(named, WIDTHS, self.around, self.folder / "trimap.png")
