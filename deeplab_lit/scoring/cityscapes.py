"""Cityscapes' further scores: IoU of the categories, and IoU weighted by instances.

As the benchmark's evaluation script defines them (Cordts et al., 2016, Sec. 4.1): a category's IoU
takes its classes for one; iIoU = iTP / (iTP + FP + iFN), where a pixel of an instance counts the
class's average instance size ÷ the instance's size, so that small instances weigh as much as large
ones. Only classes with instances have an iIoU, and of the categories those of such classes alone.

Letters: C classes · H×W image · K instances.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deeplab_lit.scoring.crf_scores import CRFScores
from deeplab_lit.scoring.per_image import gathered

OTHER = -1  # in an instance map: no instance, or none that is scored


class Instances(NamedTuple):
    """What Cityscapes knows about its classes.

    Attributes:
        categories: name → indices of its classes.
        average_size: index of each class with instances → its average instance's pixels.
        read: id → (H,W) int32, 1000 × class index + number of the instance, or OTHER; null where
            there are no instance maps.
    """

    categories: dict[str, tuple[int, ...]]
    average_size: dict[int, float]
    read: Callable[[str], np.ndarray] | None


def instance_hits(
    labels: np.ndarray, instances: np.ndarray, categories: dict[str, tuple[int, ...]]
) -> np.ndarray:
    """Of each instance of an image, (K,4) int64: class, pixels, hits, hits of the category.

    Args:
        labels: predicted class indices (H,W).
        instances: as Instances.read gives them.
        categories: as in Instances.
    """
    category = {i: list(members) for members in categories.values() for i in members}
    rows = []
    for instance in np.unique(instances[instances != OTHER]):
        index = int(instance) // 1000
        own = labels[instances == instance]
        rows.append((index, own.size, (own == index).sum(), np.isin(own, category[index]).sum()))
    return np.array(rows, np.int64).reshape(-1, 4)


def category_iou(confusion: np.ndarray, members: tuple[int, ...]) -> float:
    """IoU of classes taken for one; NaN where they are absent. confusion: (C,C)."""
    inside = list(members)
    hits = confusion[np.ix_(inside, inside)].sum()
    union = confusion[inside].sum() + confusion[:, inside].sum() - hits
    return float(hits / union) if union else math.nan


def instance_iou(
    confusion: np.ndarray,
    members: tuple[int, ...],
    hits: np.ndarray,
    column: int,
    average_size: dict[int, float],
) -> float:
    """IIoU of a class, or of classes taken for one; NaN where they are absent.

    Args:
        confusion: (C,C) pixels by true and predicted class.
        members: indices of the classes.
        hits: (K,4) of all images, as `instance_hits` gives them.
        column: of hits, what is a hit: 2, or 3 for a category.
        average_size: as in Instances.
    """
    found = missed = 0.0
    for row in hits[np.isin(hits[:, 0], members)].tolist():  # in order: floats do not commute
        weight = average_size[row[0]] / float(row[1])
        found += row[column] * weight
        missed += (row[1] - row[column]) * weight
    inside = list(members)
    false = int(confusion[:, inside].sum() - confusion[np.ix_(inside, inside)].sum())
    union = found + false + missed
    return found / union if union else math.nan


class CityscapesScores(Callback):
    """Scores every validation as Cityscapes' server does, before and after the CRF.

    Args:
        instances: of the data set.
        crf: the callback that scores after the CRF, if there is one.

    Attributes:
        results: for results.json: `iou_category`, and with instance maps `iiou` and
            `iiou_category`, each with its mean (`…_mean`); with the CRF the same in `crf`.
    """

    def __init__(self, instances: Instances, crf: CRFScores | None = None) -> None:
        self.instances = instances
        self.crf = crf
        self.results: dict[str, Any] = {}
        self.hits: dict[str, np.ndarray] = {}
        self.refined: dict[str, np.ndarray] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self.hits, self.refined = {}, {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the instances of a batch's labels (B,H,W)."""
        for id, labels in zip(batch["id"], batch["labels"], strict=True):
            self._count(self.hits, id, labels)

    def see_refined(self, id: str, labels: Tensor, mask: Tensor) -> None:
        """Count an image's labels (H,W) after the CRF; called by CRFScores."""
        self._count(self.refined, id, labels)

    def _count(self, counts: dict[str, np.ndarray], id: str, labels: Tensor) -> None:
        if self.instances.read is not None:
            there = self.instances.read(id)
            counts[id] = instance_hits(labels.cpu().numpy(), there, self.instances.categories)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score what all processes have counted."""
        classes = list(pl_module.hparams.classes)
        hits, refined = gathered(self.hits, trainer), gathered(self.refined, trainer)
        self.results = self.score(pl_module.scores.confusion, hits, classes)
        if self.crf is not None:
            self.results["crf"] = self.score(self.crf.scores.confusion, refined, classes)

    def score(
        self, confusion: Tensor, hits: dict[str, np.ndarray], classes: list[str]
    ) -> dict[str, Any]:
        """The results.

        Args:
            confusion: (C,C) pixels of the whole set by true class (row) and predicted class.
            hits: `instance_hits` of each image.
            classes: names, in the order of their indices.
        """
        about, pixels = self.instances, confusion.cpu().numpy()
        iou = {name: category_iou(pixels, members) for name, members in about.categories.items()}
        scores = {"iou_category": iou}
        if about.read is not None:
            whole = np.concatenate([np.empty((0, 4), np.int64), *hits.values()])
            scores["iiou"] = {
                classes[i]: instance_iou(pixels, (i,), whole, 2, about.average_size)
                for i in about.average_size
            }
            scores["iiou_category"] = {
                name: instance_iou(pixels, members, whole, 3, about.average_size)
                for name, members in about.categories.items()
                if set(members) <= about.average_size.keys()
            }
        results: dict[str, Any] = {}
        for name, values in scores.items():
            known = [value for value in values.values() if not math.isnan(value)]
            results[f"{name}_mean"] = sum(known) / len(known) if known else None
            results[name] = {k: None if math.isnan(v) else v for k, v in values.items()}
        return results


def benchmark_table(results: dict[str, Any]) -> str:
    """The results in percent, as text; the means, and of classes and categories each."""
    titles = {
        "iou_category": "IoU of categories",
        "iiou": "iIoU of classes",
        "iiou_category": "iIoU of categories",
    }
    columns = [results] + ([results["crf"]] if "crf" in results else [])
    lines = [] if "iiou" in results else ["  no iIoU: images without *_gtFine_instanceIds.png"]
    for key, title in titles.items():
        if key in results:
            lines.append(_line(f"  {title}, mean", [column[f"{key}_mean"] for column in columns]))
            lines += [
                _line(f"    {name}", [column[key][name] for column in columns])
                for name in results[key]
            ]
    return "\n".join(lines)


def _line(title: str, values: list[float | None]) -> str:
    shown = ("–" if value is None else f"{100 * value:.2f}" for value in values)
    return f"{title:<28}" + "".join(f"{value:>8}" for value in shown)
