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
from lightning.pytorch import Trainer
from torch import Tensor

from deeplab_lit.scoring.evaluation import ScoredModule
from deeplab_lit.scoring.metric import Scores
from deeplab_lit.scoring.observer import Observer, ScoredImage
from deeplab_lit.scoring.per_image import gathered

OTHER = -1  # in an instance map: no instance, or none that is scored


class Instances(NamedTuple):
    """Facts that Cityscapes has about its classes.

    Attributes:
        categories: name → indices of its classes.
        average_size: index of each class with instances → its average instance's pixels.
        read: id → (H,W) int32, 1000 × class index + number of the instance, or OTHER; None where
            there are no instance maps.
    """

    categories: dict[str, tuple[int, ...]]
    average_size: dict[int, float]
    read: Callable[[str], np.ndarray] | None


def instance_hits(
    labels: np.ndarray, instances: np.ndarray, categories: dict[str, tuple[int, ...]]
) -> np.ndarray:
    """Return of each instance of an image class, pixels, hits, hits of the category: (K,4) int64.

    Args:
        labels: predicted class indices (H,W).
        instances: as Instances.read gives them.
        categories: as in Instances.
    """
    category = {i: list(members) for members in categories.values() for i in members}
    rows = []
    for instance in np.unique(instances[instances != OTHER]):
        index = int(instance) // 1000
        inside = labels[instances == instance]
        hits = (inside == index).sum(), np.isin(inside, category[index]).sum()
        rows.append((index, inside.size, *hits))
    return np.array(rows, np.int64).reshape(-1, 4)


def category_iou(confusion: np.ndarray, members: tuple[int, ...]) -> float:
    """Return the IoU of classes taken for one; NaN where they are absent.

    Args:
        confusion: (C,C) pixels by true and predicted class.
        members: indices of the classes.
    """
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
    """Return the iIoU of a class, or of classes taken for one; NaN where they are absent.

    Args:
        confusion: (C,C) pixels by true and predicted class.
        members: indices of the classes.
        hits: (K,4) of all images, as `instance_hits` gives them.
        column: of hits, what is a hit: 2, or 3 for a category.
        average_size: as in Instances.
    """
    hit = missed = 0.0
    for row in hits[np.isin(hits[:, 0], members)].tolist():  # in order: floats do not commute
        weight = average_size[row[0]] / float(row[1])
        hit += row[column] * weight
        missed += (row[1] - row[column]) * weight
    inside = list(members)
    false = int(confusion[:, inside].sum() - confusion[np.ix_(inside, inside)].sum())
    union = hit + false + missed
    return hit / union if union else math.nan


class CityscapesScores(Observer):
    """Score every validation as Cityscapes' server does, before and after the CRF.

    Args:
        instances: of the data set.
    """

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self.classes: list[str] = []
        self.hits: dict[str, dict[str, np.ndarray]] = {}

    def start(self, trainer: Trainer, network: ScoredModule) -> None:
        """Begin to count."""
        self.classes, self.hits = list(network.classes), {}

    def see(self, image: ScoredImage) -> None:
        """Count the instances that an image's labels have hit."""
        if self.instances.read is not None:
            instances, categories = self.instances.read(image.id), self.instances.categories
            self.hits[image.id] = {
                suffix: instance_hits(labels.cpu().numpy(), instances, categories)
                for suffix, labels in image.predictions.items()
            }

    def finish(self, trainer: Trainer, scores: Scores, refined: Scores | None) -> dict[str, Any]:
        """Score what all processes have counted.

        Returns:
            `cityscapes`: `iou_category`, and with instance maps `iiou` and `iiou_category`, each
            with its mean (`…_mean`); with the CRF the same in `crf`.
        """
        hits = gathered(self.hits, trainer)
        results = {}
        for suffix, part in {"": scores, "_crf": refined}.items():
            if part is not None:
                rows = {id: predictions[suffix] for id, predictions in hits.items()}
                results[suffix] = self.score(part.confusion, rows, self.classes)
        after = {"crf": results["_crf"]} if refined is not None else {}
        return {"cityscapes": results[""] | after}

    def score(
        self, confusion: Tensor, hits: dict[str, np.ndarray], classes: list[str]
    ) -> dict[str, Any]:
        """Return the scores for results.json.

        Args:
            confusion: (C,C) pixels of the whole set by true class (row) and predicted class.
            hits: `instance_hits` of each image.
            classes: names, in the order of their indices.
        """
        about, pixels = self.instances, confusion.numpy()
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
