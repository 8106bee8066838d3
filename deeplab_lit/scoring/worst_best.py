"""The images that a network does worst and best on, as a picture."""

import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.pictures.masks import comparison, stack
from deeplab_lit.scoring.per_image import count, gathered, image_miou

WIDTH = 480  # pixels; what is kept of an image is not wider


class Seen(NamedTuple):
    """One image: its mIoU, and small pictures (H,W,3) and (H,W) uint8."""

    miou: float
    pictures: list[np.ndarray]


class WorstAndBest(Callback):
    """`worst_best.png` in the run folder: the images of lowest and of highest mIoU of their own.

    The network's labels decide; those after the CRF are shown beside them. Images of nothing but
    void are left out. Only the pictures that are shown are kept, at a small size, on each process.

    Args:
        folder: the run folder.
        num_images: how many of the worst, and how many of the best.
    """

    def __init__(self, folder: Path, num_images: int = 4) -> None:
        self.folder = folder
        self.num_images = num_images
        self.seen: dict[str, Seen] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.seen = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the images of a batch that belong to the worst or the best so far."""
        for id, image, labels, mask in zip(
            batch["id"], batch["image"], batch["labels"], batch["mask"], strict=True
        ):
            miou = image_miou(count(labels, mask, outputs.shape[1]))
            if math.isnan(miou):
                continue
            self.seen[id] = Seen(miou, [])
            order = _by_miou(self.seen)
            kept = {*order[: self.num_images], *order[-self.num_images :]}
            self.seen = {key: value for key, value in self.seen.items() if key in kept}
            if id in kept:
                self.seen[id].pictures.extend(map(small, (image.permute(1, 2, 0), mask, labels)))

    def see_refined(self, id: str, labels: Tensor, mask: Tensor) -> None:
        """Keep an image's labels (H,W) after the CRF, if it is one of them; called by CRFScores."""
        if id in self.seen:
            self.seen[id].pictures.append(small(labels))

    def _extremes(self, seen: dict[str, Seen]) -> tuple[list[str], list[str]]:
        """Ids of the worst, worst first, and of the best, best first; no id in both."""
        order = _by_miou(seen)
        number = min(self.num_images, len(order) // 2) if len(order) > 1 else 1
        return order[:number], order[number:][::-1][:number]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the picture of all processes' worst and best."""
        seen = gathered(self.seen, trainer)
        self.seen = {}
        if not seen or trainer.sanity_checking or not trainer.is_global_zero:
            return
        sheets = []
        for name, ids in zip(("worst", "best"), self._extremes(seen), strict=True):
            samples = [seen[id].pictures for id in ids]
            captions = [f"{name} {100 * seen[id].miou:.1f} %  {id}" for id in ids]
            if samples:
                titles = ("image", "truth", "prediction", "after the CRF")[: len(samples[0])]
                classes = pl_module.hparams.classes
                sheets.append(comparison(samples, classes, titles, captions=captions))
        with atomic_write(self.folder / "worst_best.png") as place:
            stack(sheets).save(place)


def _by_miou(seen: dict[str, Seen]) -> list[str]:
    return sorted(seen, key=lambda id: (seen[id].miou, id))


def small(picture: Tensor) -> np.ndarray:
    """An image (H,W,3) or labels (H,W) as uint8, shrunk to WIDTH if wider."""
    array = np.ascontiguousarray(picture.cpu().numpy().astype(np.uint8))
    height, width = array.shape[:2]
    if width <= WIDTH:
        return array
    size = (WIDTH, max(round(height * WIDTH / width), 1))
    how = cv2.INTER_AREA if array.ndim == 3 else cv2.INTER_NEAREST
    return cv2.resize(array, size, interpolation=how)
