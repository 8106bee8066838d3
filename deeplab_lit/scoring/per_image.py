"""Scores of every single image, for finding the odd ones and for paired statistics.

Letters: C classes · H×W image · N images.
"""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.scoring.evaluation import ScoredModule
from deeplab_lit.scoring.media import log_image_scores, takers
from deeplab_lit.scoring.metric import Scores
from deeplab_lit.scoring.observer import Observer, ScoredImage
from deeplab_lit.scoring.subsets import NO_SUBSETS
from deeplab_lit.types import VOID


def count(labels: Tensor, mask: Tensor, num_classes: int) -> np.ndarray:
    """Return an image's counts (3,C) int64: hits, true pixels, predicted pixels of each class.

    Args:
        labels: predicted class indices (H,W); void where no class is predicted.
        mask: the truth (H,W); void is not counted.
        num_classes: C.
    """
    counted = mask != VOID
    true, predicted = mask[counted].long(), labels.to(mask.device)[counted].long()
    parts = true[true == predicted], true, predicted[predicted != VOID]
    return torch.stack([x.bincount(minlength=num_classes) for x in parts]).cpu().numpy()


def image_miou(counts: np.ndarray) -> float:
    """Return the mean IoU over the classes in truth or prediction of an image.

    NaN where all of it is void.

    Args:
        counts: (3,C) as `count` gives them.
    """
    hits, true, predicted = counts
    union = true + predicted - hits
    return float((hits[union > 0] / union[union > 0]).mean()) if union.any() else math.nan


def image_accuracy(counts: np.ndarray) -> float:
    """Return the share of an image's pixels that are right, NaN if all of it is void."""
    hits, true, _ = counts.sum(1)
    return float(hits / true) if true else math.nan


def image_iou(counts: np.ndarray) -> list[float]:
    """Return the IoU of each class on an image, C values; NaN: neither in truth nor predicted."""
    hits, true, predicted = counts
    union = true + predicted - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0).tolist()


def gathered(entries: dict[str, Any], trainer: Trainer) -> dict[str, Any]:
    """Return the entries of all processes, in the order of their keys; the same on each of them.

    Args:
        entries: of this process, by keys that no other process has, as the ids of its images.
        trainer: says how many processes there are; all of them must call.
    """
    parts: list[dict[str, Any]] = [entries]
    if trainer.world_size > 1:
        parts = [{} for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(parts, entries)
    return dict(sorted((key, value) for part in parts for key, value in part.items()))


COLUMNS = {"miou": image_miou, "pixel_accuracy": image_accuracy}  # of images.csv


class ImageScores(Observer):
    """Write images.csv and images.npz: the scores of each image, and the counts behind them.

    images.csv: id, miou, pixel_accuracy, and with the CRF miou_crf, pixel_accuracy_crf; an empty
    cell where all of an image is void. images.npz: `ids` (N,), `counts` (N,3,C) int64 as `count`
    gives them, and with the CRF `counts_crf`; summed over N they are the data set's. Where subsets
    of the classes are scored by "pixels", `counts_pixels` (and `counts_pixels_crf`) are those of
    the pixels that count. Rows are in the order of the ids, whatever the number of processes.
    W&B gets a table of the same scores and of the IoU of each class on each image.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []
        self.subsets = NO_SUBSETS
        self.counts: dict[str, dict[str, np.ndarray]] = {}

    def start(self, trainer: Trainer, network: ScoredModule) -> None:
        """Begin to count."""
        self.names = list(network.classes)
        self.subsets = network.subsets
        self.counts = {}

    def see(self, image: ScoredImage) -> None:
        """Count an image."""
        masks = {"": image.mask, "_pixels": self.subsets.masked(image.mask)}
        self.counts[image.id] = {
            kind + suffix: count(labels, mask, len(self.names))
            for kind, mask in masks.items()
            for suffix, labels in image.predictions.items()
            if mask is not None
        }

    def finish(self, trainer: Trainer, scores: Scores, refined: Scores | None) -> dict[str, Any]:
        """Write what all processes have counted."""
        counts = gathered(self.counts, trainer)
        self.counts = {}
        if trainer.is_global_zero:
            suffixes = ["", "_crf"] if refined is not None else [""]
            self._write(counts, suffixes)
            for logger, step in takers(trainer):
                log_image_scores(logger, *image_table(counts, self.names, suffixes), step)
        return {}

    def _write(self, counts: dict[str, dict[str, np.ndarray]], suffixes: list[str]) -> None:
        arrays: dict[str, Any] = {"ids": np.array(list(counts))}
        for kind in next(iter(counts.values()), {}):
            arrays[f"counts{kind}"] = np.stack([image[kind] for image in counts.values()])
        with atomic_write(self.folder / "images.npz") as place:
            np.savez_compressed(place, **arrays)
        with (
            atomic_write(self.folder / "images.csv") as place,
            place.open("w", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["id", *(name + suffix for suffix in suffixes for name in COLUMNS)])
            for id, image in counts.items():
                values = [score(image[suffix]) for suffix in suffixes for score in COLUMNS.values()]
                writer.writerow([id, *("" if math.isnan(x) else x for x in values)])


def image_table(
    counts: dict[str, dict[str, np.ndarray]], names: list[str], suffixes: list[str]
) -> tuple[list[str], list[list]]:
    """Return columns and rows of the scores of each image: those of images.csv, and of its classes.

    Args:
        counts: id → suffix → counts (3,C) as `count` gives them.
        names: of the classes.
        suffixes: "" for the network's labels, "_crf" for those after the CRF.

    Returns:
        id, and for each suffix miou, pixel_accuracy and iou/<class>; None where there is no score.
    """
    columns = ["id"]
    for suffix in suffixes:
        columns += [name + suffix for name in COLUMNS]
        columns += [f"iou{suffix}/{name}" for name in names]
    rows: list[list] = []
    for id, image in counts.items():
        parts = [image[suffix] for suffix in suffixes]
        values = [[*(f(x) for f in COLUMNS.values()), *image_iou(x)] for x in parts]
        rows.append([id, *(None if math.isnan(x) else x for part in values for x in part)])
    return columns, rows
