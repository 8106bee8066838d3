"""Observers of a validation: their base, the images that they see, and the results.

Letters: C classes · H×W image.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from torch import Tensor

from deeplab_lit.errors import UserError
from deeplab_lit.scoring.evaluation import ScoredModule
from deeplab_lit.scoring.metric import Scores, finite


class ObserverError(UserError, ValueError):
    """An observer returns something that cannot be kept; says why."""


@dataclass(frozen=True)
class ScoredImage:
    """A validation image with all labels that it has been given.

    Attributes:
        index: its place among the images of this process, the same in every validation.
        id: its name in the data set.
        image: (H,W,3) uint8 RGB.
        mask: (H,W) uint8, the truth: class indices, and 255 for void.
        labels: (H,W) uint8, the network's; 255 where a file that is scored has no class.
        refined: (H,W) uint8, after the CRF; None without one.
    """

    index: int
    id: str
    image: Tensor
    mask: Tensor
    labels: Tensor
    refined: Tensor | None = None

    @property
    def predictions(self) -> dict[str, Tensor]:
        """Labels of the network and, with the CRF, after it, by the suffix of their scores."""
        return {"": self.labels} | ({} if self.refined is None else {"_crf": self.refined})


class Observer:
    """Look at every image of a validation, each once, on the process that scored it.

    The base of whatever makes something of the images: a metric, a picture, a file. Override what
    is needed. Each process has its own observer. Observers do not know each other, and their order
    does not matter. The check before a training is not shown to them.
    """

    def start(self, trainer: Trainer, network: ScoredModule) -> None:
        """Begin anew, before the first image; `network.classes` has names and colors."""

    def see(self, image: ScoredImage) -> None:
        """Look at an image; they come in any order. Its tensors belong to all observers."""

    def finish(self, trainer: Trainer, scores: Scores, refined: Scores | None) -> dict[str, Any]:
        """Return what has been found, the same on every process; {} for nothing.

        Numbers are logged as val/<name>, so that checkpoints can go by them, shown on the screen,
        and kept in results.json under `metrics`. Anything else is kept there under its own name.
        `scoring.per_image.gathered` brings together what the processes have found.

        Args:
            trainer: says which process this is.
            scores: the network's on the whole set; `scores.confusion` is (C,C), or (C,C+1)
                where files were scored that leave pixels without a class, the last column.
            refined: those after the CRF; None without one.
        """
        return {}


class Results(NamedTuple):
    """The results of a validation, the same on every process.

    Attributes:
        scores: the network's.
        refined: those after the CRF; None without one.
        crf: its parameters, backend and seconds an image; empty without one.
        metrics: numbers that observers have found.
        entries: what else they have found, for results.json.
        images: how many have been scored.
        images_in_split: how many there are.
        classes: their names, in the order of the class indices.
    """

    scores: Scores
    refined: Scores | None
    crf: dict[str, Any]
    metrics: dict[str, float]
    entries: dict[str, Any]
    images: int
    images_in_split: int
    classes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return what results.json holds."""
        values: dict[str, Any] = {"images": self.images, "images_in_split": self.images_in_split}
        values |= self.scores.as_dict(self.classes)
        if self.refined is not None:
            values["crf"] = self.crf | self.refined.as_dict(self.classes)
        if self.metrics:
            values["metrics"] = {name: finite(value) for name, value in self.metrics.items()}
        return values | self.entries
