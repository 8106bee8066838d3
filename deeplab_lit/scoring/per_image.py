"""Scores of every single image, for finding the odd ones and for paired statistics.

Letters: C classes · H×W image · N images.
"""

import csv
import math
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.types import VOID

COLUMNS = ("miou", "pixel_accuracy")


def count(labels: Tensor, mask: Tensor, num_classes: int) -> np.ndarray:
    """One image's counts (3,C) int64: hits, true pixels, predicted pixels of each class.

    Args:
        labels: predicted class indices (H,W).
        mask: the truth (H,W); void is not counted.
        num_classes: C.
    """
    counted = mask != VOID
    true, predicted = mask[counted].long(), labels.to(mask.device)[counted].long()
    counts = (x.bincount(minlength=num_classes) for x in (true[true == predicted], true, predicted))
    return torch.stack(list(counts)).cpu().numpy()


def image_miou(counts: np.ndarray) -> float:
    """Mean IoU over the classes in truth or prediction of one image, NaN if all of it is void.

    Args:
        counts: (3,C) as `count` gives them.
    """
    hits, true, predicted = counts
    union = true + predicted - hits
    return float((hits[union > 0] / union[union > 0]).mean()) if union.any() else math.nan


def image_accuracy(counts: np.ndarray) -> float:
    """Share of one image's pixels that are right, NaN if all of it is void."""
    hits, true, _ = counts.sum(1)
    return float(hits / true) if true else math.nan


def gathered(own: dict, trainer: Trainer) -> dict:
    """The entries of all processes, in the order of their keys; the same on each of them."""
    parts = [own]
    if trainer.world_size > 1:
        parts = [None] * trainer.world_size
        torch.distributed.all_gather_object(parts, own)
    whole = {key: value for part in parts for key, value in part.items()}
    return dict(sorted(whole.items()))


class ImageScores(Callback):
    """Writes images.csv and images.npz: the scores of each image, and the counts behind them.

    images.csv: id, miou, pixel_accuracy, and with the CRF miou_crf, pixel_accuracy_crf; an empty
    cell where all of an image is void. images.npz: `ids` (N,), `counts` (N,3,C) int64 as `count`
    gives them, and with the CRF `counts_crf`; summed over N they are the data set's. Rows are in
    the order of the ids, whatever the number of processes.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: dict[str, np.ndarray] = {}
        self.refined: dict[str, np.ndarray] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self.num_classes = len(pl_module.hparams.classes)
        self.counts, self.refined = {}, {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch's labels (B,H,W), image by image."""
        for id, labels, mask in zip(batch["id"], batch["labels"], batch["mask"], strict=True):
            self.counts[id] = count(labels, mask, self.num_classes)

    def see_refined(self, id: str, labels: Tensor, mask: Tensor) -> None:
        """Count an image (H,W) after the CRF; called by CRFScores."""
        self.refined[id] = count(labels, mask, self.num_classes)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what all processes have counted."""
        counts, refined = gathered(self.counts, trainer), gathered(self.refined, trainer)
        self.counts, self.refined = {}, {}
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._write(counts, refined)

    def _write(self, counts: dict[str, np.ndarray], refined: dict[str, np.ndarray]) -> None:
        arrays = {"ids": np.array(list(counts)), "counts": np.stack(list(counts.values()))}
        columns = list(COLUMNS)
        if refined:
            arrays["counts_crf"] = np.stack([refined[id] for id in counts])
            columns += [f"{name}_crf" for name in COLUMNS]
        with atomic_write(self.folder / "images.npz") as place:
            np.savez_compressed(place, **arrays)
        with (
            atomic_write(self.folder / "images.csv") as place,
            place.open("w", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["id", *columns])
            for id, own in counts.items():
                both = [own, refined[id]] if refined else [own]
                values = [score(x) for x in both for score in (image_miou, image_accuracy)]
                writer.writerow([id, *("" if math.isnan(x) else x for x in values)])
