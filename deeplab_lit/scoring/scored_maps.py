"""Predictions that lie in files, scored as if a network had made them.

Void in a prediction is read in one of three ways. Cityscapes' script counts it as "wrong", which
is the default here; VOC's (VOCevalseg.m) refuses values that are no class; IRN and RIB, and with
them published numbers of pseudo-masks, turn it into "background" first; to "skip" it scores a
method on the pixels that it chose itself, which compares with nothing else.

Letters: B batch · C classes · H×W image.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from deeplab_lit.data.predicted_maps import PredictedMaps
from deeplab_lit.scoring.evaluation import Evaluation, Prediction, ScoredModule
from deeplab_lit.scoring.metric import Scores
from deeplab_lit.scoring.observer import Observer
from deeplab_lit.scoring.subsets import NO_SUBSETS, Subsets
from deeplab_lit.types import VOID, Classes

VoidAs = Literal["wrong", "background", "skip"]


class VoidPixels(NamedTuple):
    """How much of the predictions is void.

    Attributes:
        pixels: void ones, where the truth is not void.
        share: of all pixels where the truth is not void, 0…1.
    """

    pixels: int
    share: float


class ScoredMaps(ScoredModule):
    """Predictions in files, with their scores: for `Trainer.validate`, as a network is scored.

    Args:
        maps: the files.
        classes: name → RGB color of each class, in the order of the class indices.
        evaluation: `score_resized` says at which size they are scored. None: at the images' own.
        subsets: of the classes, to be scored too.
        void_as: void in a prediction is "wrong": its true class misses it, and no other class has
            it; "background": class 0; "skip": not counted.
        gt_prob: of labels that the CRF refines, see `soft_labels`. None: nothing is refined.
    """

    def __init__(
        self,
        maps: PredictedMaps,
        classes: Classes,
        evaluation: Evaluation | None = None,
        subsets: Subsets = NO_SUBSETS,
        void_as: VoidAs = "wrong",
        gt_prob: float | None = None,
    ) -> None:
        super().__init__(classes, evaluation, subsets, columns=len(classes) + 1)
        self.maps = maps
        self.void_as = void_as
        self.gt_prob = gt_prob

    def validation_step(self, batch: dict, batch_idx: int) -> Prediction:
        """Read the files of a batch, and count them."""
        masks = self.evaluation.as_scored(batch)["mask"]
        size = (masks.shape[1], masks.shape[2])
        found = [self.maps.read(id, size) for id in batch["id"]]
        labels = np.stack([self.maps.labels(each, size) for each in found])
        predicted = torch.from_numpy(labels).to(masks.device)
        is_void = predicted == VOID
        self.metric.update(predicted.masked_fill(is_void, len(self.classes)), masks)
        if self.void_as == "background":
            predicted = predicted.masked_fill(is_void, 0)
        prediction = Prediction(labels=predicted)
        if self.void_as == "skip":
            prediction["mask"] = masks.masked_fill(is_void, VOID)
        if self.gt_prob is not None:
            values = [self.maps.probabilities(each, size, self.gt_prob) for each in found]
            prediction["logits"] = torch.from_numpy(np.stack(values)).to(masks.device).log()
        return prediction

    def count_scores(self) -> Scores:
        """Return the scores of what has been counted, on all processes together."""
        counted = self._counted()
        classes, void = counted[:, :-1].clone(), counted[:, -1]
        if self.void_as == "background":
            classes[:, 0] += void
        is_missed = self.void_as == "wrong" and bool(void.any())
        return Scores(counted if is_missed else classes, subsets=self.subsets)

    def void(self) -> VoidPixels:
        """Return how much of the predictions is void, on all processes together."""
        counted = self._counted()
        pixels = int(counted[:, -1].sum())
        return VoidPixels(pixels, pixels / max(int(counted.sum()), 1))

    def _counted(self) -> Tensor:
        """Return pixels by true class and predicted class, (C,C+1); the last column is void."""
        return self.metric.compute().confusion[:-1]


class PredictedVoid(Observer):
    """Put into results.json how much of the predictions is void, and how it is counted.

    Args:
        maps: the predictions.
    """

    def __init__(self, maps: ScoredMaps) -> None:
        self.maps = maps

    def finish(self, trainer: Trainer, scores: Scores, refined: Scores | None) -> dict[str, Any]:
        """Return `void_predicted`: how it is counted, pixels, share."""
        return {"void_predicted": {"as": self.maps.void_as, **self.maps.void()._asdict()}}
