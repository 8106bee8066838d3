"""A split of a data set, and what a DataLoader makes of it.

Letters: B batch · H×W image.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from deeplab_lit.data.image import VOID, DataError, read_image, read_mask
from deeplab_lit.data.transforms import TrainTransform

INVALID = 254  # in a label map: a value that the data set does not have
AUGMENTATION = 2  # apart from the random numbers of data/sampler.py and data/draw.py
Arrays = tuple[np.ndarray, np.ndarray]  # image (H,W,3) uint8 RGB, mask (H,W) uint8


class Batch(TypedDict):
    """What the network is trained and scored on."""

    image: Tensor  # (B,3,H,W) uint8 RGB
    mask: Tensor  # (B,H,W) uint8 in {0…C−1, 255}
    id: list[str]


class Split(ABC):
    """The labelled images of one split, in a fixed order.

    Attributes:
        ids: a name for each image, unique.
    """

    ids: Sequence[str]

    @abstractmethod
    def read(self, index: int) -> Arrays:
        """Image (H,W,3) uint8 RGB and mask (H,W) uint8 in {0…C−1, 255} of the same size."""


class Pair(NamedTuple):
    """Files of one labelled image."""

    id: str
    image: Path
    mask: Path


class FileSplit(Split):
    """Image files with mask files.

    Args:
        pairs: the files.
        num_classes: C.
        label_map: (256,) uint8, from the values in the files to class indices or 255; a value that
            the data set does not have maps to INVALID. Without it the files hold class indices.
    """

    def __init__(
        self, pairs: Sequence[Pair], num_classes: int, label_map: np.ndarray | None = None
    ) -> None:
        self.pairs = pairs
        self.ids = [pair.id for pair in pairs]
        self.num_classes = num_classes
        self.label_map = label_map

    def read(self, index: int) -> Arrays:
        """Decode, map and check one pair.

        Raises:
            DataError: a file that cannot be read, sizes that differ, a value that is neither a
                class nor void.
        """
        pair = self.pairs[index]
        image, raw = read_image(pair.image), read_mask(pair.mask)
        if image.shape[:2] != raw.shape:
            raise DataError(
                f"{pair.mask}: mask of {raw.shape[1]}×{raw.shape[0]} pixels for an image of "
                f"{image.shape[1]}×{image.shape[0]} ({pair.image}); they must be the same size"
            )
        mask = raw if self.label_map is None else self.label_map[raw]
        if (mask + np.uint8(1)).max() > self.num_classes:  # 255 + 1 wraps to 0: void is fine
            bad = np.unique(raw[(mask >= self.num_classes) & (mask != VOID)])
            raise DataError(
                f"{pair.mask}: mask value {', '.join(map(str, bad[:8]))}, which is neither one of "
                f"the {self.num_classes} classes nor void. Correct the mask, the list of classes, "
                "or the void value."
            )
        return image, mask


class SegmentationDataset(Dataset):
    """A split as a map-style dataset.

    Args:
        split: where images come from.
        transform: random augmentation, for training.
        seed: of the augmentation.
    """

    def __init__(
        self, split: Split, transform: TrainTransform | None = None, seed: int = 0
    ) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split.ids)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[np.ndarray, np.ndarray, str]:
        """Image (H,W,3), mask (H,W), id.

        Args:
            key: an index; or (position, index), where the position in the training stream makes
                the augmentation: the same position always draws the same crop.
        """
        position, index = key if isinstance(key, tuple) else (key, key)
        image, mask = self.split.read(index)
        if self.transform is not None:
            rng = np.random.default_rng((self.seed, position, AUGMENTATION))
            image, mask = self.transform(image, mask, rng)
        return image, mask, self.split.ids[index]


def collate(samples: list[tuple[np.ndarray, np.ndarray, str]]) -> Batch:
    """Samples of one size to a batch; the image's memory stays in H,W,3 order (channels last).

    Raises:
        DataError: images of different sizes.
    """
    images, masks, ids = zip(*samples, strict=True)
    if len({image.shape for image in images}) > 1:
        sizes = ", ".join(
            f"{id} {image.shape[1]}×{image.shape[0]}" for id, image in zip(ids, images, strict=True)
        )
        raise DataError(
            f"images of different sizes cannot share a batch ({sizes}): "
            "set --data.eval_batch_size 1"
        )
    return {
        "image": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        "mask": torch.from_numpy(np.stack(masks)),
        "id": list(ids),
    }
