"""Evaluate a trained network: the options `--eval.…`, and the module that scores it.

Letters: B batch · C classes · H×W image.
"""

from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from deeplab_lit.data.transforms import resized
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.inference import Inference, resample
from deeplab_lit.scoring.metric import PixelLoss, Scores, SegmentationScores
from deeplab_lit.scoring.probability_cache import CachedProbabilities
from deeplab_lit.scoring.subsets import NO_SUBSETS, Rule, Subsets
from deeplab_lit.types import Classes

Around = Literal["void", "classes"]  # borders: void pixels, or those between classes

SCORED_RESIZED = (
    "Note: masks are brought to --eval.resize and scored there (--eval.score_resized): such scores "
    "compare with those of papers that do the same, and are higher as a rule"
)


@dataclass
class Evaluation(Inference):
    """Options of an evaluation; never part of a checkpoint.

    Args:
        cache_dir: of validate: keep the network's probabilities there, as 16-bit floats, and take
            those of images that are there already.
        trimap: of validate: mIoU of the pixels near borders too, by their distance from them:
            "void" (the paper's Fig. 10) or "classes"; see scoring/trimap.py.
        score_resized: score at `resize`, masks brought there by the nearest pixel (DACS).
        subsets: score subsets of the classes too, as Cityscapes' 16 and 13: by "rows" of the whole
            matrix, or without the other classes' "pixels"; see scoring/subsets.py. None: "rows"
            where the training data lack classes.
    """

    cache_dir: str | None = None
    trimap: Around | None = None
    score_resized: bool = False
    subsets: Rule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_resized and self.resize is None:
            raise ValueError(
                "--eval.score_resized true scores at the size of --eval.resize: give it, as "
                "--eval.resize '[512, 1024]'"
            )
        if self.cache_dir == "":
            raise ValueError("--eval.cache_dir must name a folder, got nothing")
        self._cache: CachedProbabilities | None = None

    def as_scored(self, batch: dict) -> dict:
        """Return a batch as it is scored: itself, or its images and masks at the size of `resize`.

        Masks are resized as PIL's NEAREST does it (DACS, evaluateUDA.py).

        Args:
            batch: of the validation.
        """
        if not self.score_resized or self.resize is None:
            return batch
        masks = [resized(mask, self.resize, "nearest") for mask in batch["mask"].cpu().numpy()]
        return {
            "image": resample(batch["image"], self.resize, self.resize_filter),
            "mask": torch.from_numpy(np.stack(masks)).to(batch["mask"].device),
            "id": batch["id"],
        }

    def settings(self, net: DeepLabV2) -> dict[str, Any]:
        """Return what decides about the result, for records: the options that do something."""
        scored = {"score_resized": True} if self.score_resized else {}
        return super().settings(net) | scored

    def title(self, net: DeepLabV2) -> str:
        """Say how images are seen and scored, for the title of a table."""
        words = f"scales {list(self.scales or net.scales)}"
        if self.resize is not None:
            words += f", seen {'and scored ' if self.score_resized else ''}at "
            words += f"{self.resize[1]}×{self.resize[0]}"
        return words

    def logits(self, net: DeepLabV2, batch: dict) -> Tensor:
        """Return the logits (B,C,H,W) of a batch; log-probabilities where they are cached."""
        if self.cache_dir is None:
            return self(net, batch["image"])
        if self._cache is None:
            self._cache = CachedProbabilities(self.cache_dir, net.num_classes)
        return self._cache.log_probabilities(batch["id"], batch["image"], lambda x: self(net, x))

    def from_cache(self) -> tuple[int, int]:
        """Return how many images this process took from the cache, and how many were unfit."""
        return (self._cache.reused, self._cache.replaced) if self._cache else (0, 0)


class Prediction(TypedDict):
    """The predictions for a batch of images.

    Attributes:
        labels: (B,H,W) int64 or uint8, the most probable class; 255 where there is none.
        logits: (B,C,H,W) float; log-probabilities where they come from a file. The CRF needs them.
        mask: (B,H,W) uint8, the truth that counts, where it is not the batch's.
    """

    labels: Tensor
    logits: NotRequired[Tensor]
    mask: NotRequired[Tensor]


class ScoredModule(LightningModule):
    """Score the images of `Trainer.validate`: the base for a network and for predictions in files.

    A subclass has `validation_step`, which counts a batch in `metric` and returns a `Prediction`.

    Args:
        classes: name → RGB color of each class, in the order of the class indices.
        evaluation: options of the evaluation.
        subsets: of the classes, to be scored too; may be changed at any time.
        columns: of the confusion matrix, which counts what is predicted. None: C.

    Attributes:
        scores: of the last validation, the same on every process; None before the first.
    """

    def __init__(
        self,
        classes: Classes,
        evaluation: Evaluation | None = None,
        subsets: Subsets = NO_SUBSETS,
        columns: int | None = None,
    ) -> None:
        super().__init__()
        self.classes = dict(classes)
        self.evaluation = evaluation or Evaluation()
        self.subsets = subsets
        self.metric = SegmentationScores(columns or len(classes))
        self.scores: Scores | None = None

    def on_validation_epoch_start(self) -> None:
        """Begin to count, in memory of this process alone: spawned ones share the module's."""
        self.metric.reset()

    def count_scores(self) -> Scores:
        """Return the scores of what has been counted, on all processes together.

        The processes talk once, however often it is called.
        """
        return Scores(self.metric.compute().confusion, subsets=self.subsets)

    def on_validation_epoch_end(self) -> None:
        """Keep the scores and log them as val/…."""
        self.scores = self.count_scores()
        values = self.scores.named("val", self.classes)
        self.log("val/miou", values.pop("val/miou"), prog_bar=True, sync_dist=True)
        self.log_dict(values, sync_dist=True)  # they agree; Lightning wants to be told


class ScoredNetwork(ScoredModule):
    """A network with its scores: all that `Trainer.validate` needs, and what a training validates.

    Args:
        net: the network.
        classes: name → RGB color of each class, in the order of the class indices.
        evaluation: how images go through it. None: whole, at the scales it was trained with.
        subsets: of the classes, to be scored too; may be changed at any time.
    """

    def __init__(
        self,
        net: DeepLabV2,
        classes: Classes,
        evaluation: Evaluation | None = None,
        subsets: Subsets = NO_SUBSETS,
    ) -> None:
        super().__init__(classes, evaluation, subsets)
        self.net = net
        net.classes = self.classes
        self.pixel_loss = PixelLoss()

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        super().on_validation_epoch_start()
        self.pixel_loss.reset()

    def validation_step(self, batch: dict, batch_idx: int) -> Prediction:
        """Count a batch, and return what the network makes of it for whoever looks at it.

        The labels are returned too: at 2048×1024 and 19 classes the maximum takes longer than
        anything else beside the network.
        """
        batch = self.evaluation.as_scored(batch)
        logits = self.evaluation.logits(self.net, batch)
        labels = logits.argmax(dim=1)
        self.metric.update(labels, batch["mask"])
        self.pixel_loss.update(logits, batch["mask"])
        return Prediction(logits=logits, labels=labels)

    def count_scores(self) -> Scores:
        """Return the scores and the loss of what has been counted, on all processes together."""
        return Scores(self.metric.compute().confusion, self.pixel_loss.compute(), self.subsets)
