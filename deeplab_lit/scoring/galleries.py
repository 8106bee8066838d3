"""Pictures that a validation leaves: samples, the worst and the best images, charts of the scores.

Letters: H×W image.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from lightning.pytorch import Trainer
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.pictures.charts import class_bars, confusion_matrix
from deeplab_lit.pictures.masks import FAST, comparison, stack
from deeplab_lit.scoring.evaluation import ScoredModule
from deeplab_lit.scoring.media import Sample, log_samples, log_score_tables, takers
from deeplab_lit.scoring.metric import Scores
from deeplab_lit.scoring.observer import Observer, ScoredImage
from deeplab_lit.scoring.per_image import count, gathered, image_miou
from deeplab_lit.scoring.validation import images_here
from deeplab_lit.types import Classes

TITLES = ("image", "truth", "prediction", "after the CRF")
WIDEST = 480  # pixels; what is kept of an image for worst_best.png is not wider


class SamplePictures(Observer):
    """Write `predictions.png` in the run folder, and W&B's own mask overlays.

    The images are spread over the first process's share of the validation set and stay the same.
    Other processes do nothing.

    Args:
        folder: the run folder.
        num_images: how many.
        every: log to W&B after every so many validations.
    """

    def __init__(self, folder: Path, num_images: int = 8, every: int = 5) -> None:
        self.folder = folder
        self.num_images = num_images
        self.every = every
        self.classes: Classes = {}
        self.chosen: set[int] = set()
        self.samples: dict[int, Sample] = {}
        self.validations = 0

    def start(self, trainer: Trainer, network: ScoredModule) -> None:
        """Choose the images."""
        self.classes, self.samples, self.chosen = network.classes, {}, set()
        if trainer.is_global_zero:
            images = images_here(trainer)
            places = np.linspace(0, images - 1, min(images, self.num_images)).round()
            self.chosen = set(places.astype(int).tolist())

    def see(self, image: ScoredImage) -> None:
        """Keep an image, if it is one of the chosen."""
        if image.index in self.chosen:
            pictures = [image.image, image.mask, *image.predictions.values()]
            arrays = [picture.cpu().numpy().astype(np.uint8) for picture in pictures]
            self.samples[image.index] = Sample(image.id, arrays)

    def finish(self, trainer: Trainer, scores: Scores, refined: Scores | None) -> dict[str, Any]:
        """Write the picture; log to W&B when it is time."""
        samples = [self.samples[index] for index in sorted(self.samples)]
        self.samples = {}
        if not samples:
            return {}
        pictures = [sample.pictures for sample in samples]
        titles = TITLES[: len(pictures[0])]
        with atomic_write(self.folder / "predictions.png") as place:
            comparison(pictures, self.classes, titles).save(place, compress_level=FAST)
        last = (
            trainer.state.fn != "fit" or trainer.global_step >= trainer.estimated_stepping_batches
        )
        if self.validations % self.every == 0 or last:
            for logger, step in takers(trainer):
                log_samples(logger, samples, list(self.classes), step)
                log_score_tables(logger, scores, list(self.classes), step)
        self.validations += 1
        return {}


class Ranked(NamedTuple):
    """An image that may be among the worst or the best.

    Attributes:
        miou: of the network's labels on this image alone.
        pictures: as in `Sample`, small; empty where the image is not kept.
    """

    miou: float
    pictures: list[np.ndarray]


class WorstAndBest(Observer):
    """Write `worst_best.png` in the run folder: the images whose own mIoU is lowest and highest.

    The network's labels decide; those after the CRF are shown beside them. Images of nothing but
    void are left out. Only the pictures that are shown are kept, at a small size, on each process.

    Args:
        folder: the run folder.
        num_images: how many of the worst, and how many of the best.
    """

    def __init__(self, folder: Path, num_images: int = 4) -> None:
        self.folder = folder
        self.num_images = num_images
        self.classes: Classes = {}
        self.ranked: dict[str, Ranked] = {}

    def start(self, trainer: Trainer, network: ScoredModule) -> None:
        """Begin anew."""
        self.classes, self.ranked = network.classes, {}

    def see(self, image: ScoredImage) -> None:
        """Keep an image if it belongs to the worst or the best so far."""
        miou = image_miou(count(image.labels, image.mask, len(self.classes)))
        if math.isnan(miou):
            return
        self.ranked[image.id] = Ranked(miou, [])
        order = _by_miou(self.ranked)
        kept = {*order[: self.num_images], *order[-self.num_images :]}
        self.ranked = {id: ranked for id, ranked in self.ranked.items() if id in kept}
        if image.id in kept:
            pictures = [image.image, image.mask, *image.predictions.values()]
            self.ranked[image.id].pictures.extend(map(small, pictures))

    def _extremes(self, ranked: dict[str, Ranked]) -> tuple[list[str], list[str]]:
        """Return ids of the worst, worst first, and of the best, best first; no id in both."""
        order = _by_miou(ranked)
        number = min(self.num_images, len(order) // 2) if len(order) > 1 else 1
        return order[:number], order[number:][::-1][:number]

    def finish(self, trainer: Trainer, scores: Scores, refined: Scores | None) -> dict[str, Any]:
        """Write the picture of all processes' worst and best."""
        ranked = gathered(self.ranked, trainer)
        self.ranked = {}
        if not ranked or not trainer.is_global_zero:
            return {}
        sheets = []
        for name, ids in zip(("worst", "best"), self._extremes(ranked), strict=True):
            samples = [ranked[id].pictures for id in ids]
            captions = [f"{name} {100 * ranked[id].miou:.1f} %  {id}" for id in ids]
            if samples:
                titles = TITLES[: len(samples[0])]
                sheets.append(comparison(samples, self.classes, titles, captions=captions))
        with atomic_write(self.folder / "worst_best.png") as place:
            stack(sheets).save(place, compress_level=FAST)
        return {}


def _by_miou(ranked: dict[str, Ranked]) -> list[str]:
    return sorted(ranked, key=lambda id: (ranked[id].miou, id))


def small(picture: Tensor) -> np.ndarray:
    """Return an image (H,W,3) or labels (H,W) as uint8, shrunk to a width of 480 if wider."""
    array = np.ascontiguousarray(picture.cpu().numpy().astype(np.uint8))
    height, width = array.shape[:2]
    if width <= WIDEST:
        return array
    size = (WIDEST, max(round(height * WIDEST / width), 1))
    how = cv2.INTER_AREA if array.ndim == 3 else cv2.INTER_NEAREST
    return cv2.resize(array, size, interpolation=how)


class ScoreCharts(Observer):
    """Write classes.png, the IoU of each class, and confusion.png, what was taken for what.

    With the CRF, classes.png shows both scores, and confusion_crf.png is the matrix after it.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def start(self, trainer: Trainer, network: ScoredModule) -> None:
        """Learn the classes' names."""
        self.names = list(network.classes)

    def finish(self, trainer: Trainer, scores: Scores, refined: Scores | None) -> dict[str, Any]:
        """Draw; on the first process only."""
        if not trainer.is_global_zero:
            return {}
        bars: dict[str, Sequence[float]] = {"network": scores.iou.tolist()}
        if refined is not None:
            bars["after the CRF"] = refined.iou.tolist()
            confusion_matrix(refined.confusion, self.names, self.folder / "confusion_crf.png")
        confusion_matrix(scores.confusion, self.names, self.folder / "confusion.png")
        class_bars(bars, self.names, self.folder / "classes.png")
        return {}
