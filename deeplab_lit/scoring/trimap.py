"""Scores of the pixels near borders, by their distance from them.

DeepLabv2, Sec. 4.1.2 and Fig. 10: mIoU over the pixels within a narrow band around the void pixels
that separate objects, as a function of the band's width. Where a data set has no such pixels, the
borders of the classes take their place.

Letters: B batch · C classes · H×W image · W band widths.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torchmetrics import Metric

from deeplab_lit.atomic import atomic_write
from deeplab_lit.pictures.charts import band_curves
from deeplab_lit.scoring.metric import iou_of
from deeplab_lit.types import VOID

Around = Literal["void", "classes"]
WIDTHS = range(1, 41)
NAMES = {"miou": "mIoU", "miou_crf": "mIoU after the CRF"}


def distance(mask: np.ndarray, around: Around) -> np.ndarray:
    """Each pixel's distance in pixels from the nearest border: (H,W) uint8 → (H,W) float32.

    Args:
        mask: the truth.
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


class BandScores(Metric):
    """mIoU inside bands around borders, from one confusion matrix a width over the whole set.

    `compute` gives mIoU (W,), NaN where a band has no pixel. A band holds the pixels whose distance
    from the border is at most its width.

    Args:
        num_classes: C.
        widths: in pixels, ascending.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = np.asarray(widths)
        self.num_classes = num_classes
        shape = (len(widths), num_classes, num_classes)
        self.add_state("rings", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, labels: Tensor, mask: Tensor, distances: np.ndarray) -> None:
        """Count an image: pixels between one width and the next, by true and predicted class.

        Args:
            labels: (H,W) predicted.
            mask: (H,W) truth.
            distances: (H,W), see `distance`.
        """
        predicted, truth = labels.cpu().numpy(), mask.cpu().numpy()
        ring = np.searchsorted(self.widths, distances)
        counted = (ring < len(self.widths)) & (truth != VOID)
        index = [part[counted].astype(np.int64) for part in (ring, truth, predicted)]
        flat = np.ravel_multi_index(index, self.rings.shape)
        counts = np.bincount(flat, minlength=self.rings.numel())
        self.rings += torch.from_numpy(counts).view(self.rings.shape).to(self.rings.device)

    def compute(self) -> Tensor:
        """The bands' mIoU (W,), 0…1."""
        return iou_of(self.rings.cumsum(0).cpu()).nanmean(-1)


class BandCurve(Callback):
    """Writes band.csv and band.png: mIoU by the band's width, before and after the CRF.

    Args:
        folder: the run folder.
        around: see `distance`.
        crf: whether there are labels after the CRF too.

    Attributes:
        curves: of the last validation: "miou", and with the CRF "miou_crf", (W,) each.
    """

    def __init__(self, folder: Path, around: Around, *, crf: bool) -> None:
        self.folder = folder
        self.around = around
        self.names = ("miou", "miou_crf") if crf else ("miou",)
        self.metrics: dict[str, BandScores] = {}
        self.distances: dict[str, np.ndarray] = {}  # of images that have been seen once of twice
        self.curves: dict[str, list[float]] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        num_classes = len(pl_module.hparams.classes)
        self.metrics = {name: BandScores(num_classes).to(pl_module.device) for name in self.names}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch's labels (B,H,W)."""
        for sample in zip(batch["id"], batch["labels"], batch["mask"], strict=True):
            self._count("miou", *sample)

    def see_refined(self, id: str, labels: Tensor, mask: Tensor) -> None:
        """Count an image (H,W) after the CRF; called by CRFScores."""
        self._count("miou_crf", id, labels, mask)

    def _count(self, name: str, id: str, labels: Tensor, mask: Tensor) -> None:
        distances = self.distances.pop(id, None)
        if distances is None:
            distances = distance(mask.cpu().numpy(), self.around)
            if len(self.names) > 1:
                self.distances[id] = distances  # until the other labels of the image come
        self.metrics[name].update(labels, mask, distances)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score on all processes together, and write."""
        self.curves = {name: metric.compute().tolist() for name, metric in self.metrics.items()}
        self._write()

    @rank_zero_only
    def _write(self) -> None:
        with atomic_write(self.folder / "band.csv") as place, place.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["width", *self.curves, "around"])
            rows = zip(WIDTHS, *self.curves.values(), strict=True)
            writer.writerows([*row, self.around] for row in rows)
        named = {NAMES[name]: curve for name, curve in self.curves.items()}
        band_curves(named, WIDTHS, self.around, self.folder / "band.png")


def band_table(
    curves: dict[str, list[float]], widths: Sequence[int] = (1, 2, 5, 10, 20, 40)
) -> str:
    """Some of the curves' values in percent, as text."""
    lines = ["  pixels from a border  " + "".join(f"{f'≤ {width}':>7}" for width in widths)]
    for name, curve in curves.items():
        shown = [curve[WIDTHS.index(width)] for width in widths]
        values = (f"{100 * value:7.2f}" if value == value else f"{'–':>7}" for value in shown)
        lines.append(f"  {NAMES[name]:<22}{''.join(values)}")
    return "\n".join(lines)
