"""The labeled images of one split of a data set.

Letters: C classes · H×W image.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from deeplab_lit.types import Color

INVALID = 254  # in a label map: a value that the data set does not have
Arrays = tuple[np.ndarray, np.ndarray]  # image (H,W,3) uint8 RGB, mask (H,W) uint8


class MaskContent(NamedTuple):
    """The content of one mask.

    Attributes:
        size: (width, height) in pixels.
        values: (256,) int64, pixels of each value in the file.
        indices: (256,) int64, pixels of each class index; 255 is void.
        colors: value in the file → its color, for the values that occur and whose color the
            file's palette has only once.
        source: the file, or the image's id where there is none.
    """

    size: tuple[int, int]
    values: np.ndarray
    indices: np.ndarray
    colors: dict[int, Color]
    source: str


class Split(ABC):
    """The labeled images of one split, in a fixed order.

    Attributes:
        ids: a name for each image, unique.
        label_map: (256,) uint8, from the values in the label files to class indices, or None where
            they are the same; see `FileSplit`.
        has_mask_files: a mask can be read without its image.
    """

    ids: Sequence[str]
    label_map: np.ndarray | None = None
    has_mask_files: bool = False

    @abstractmethod
    def read(self, index: int) -> Arrays:
        """Read an image (H,W,3) uint8 RGB and its mask (H,W) uint8 in {0…C−1, 255}."""

    def image(self, index: int) -> np.ndarray:
        """Read an image alone, (H,W,3) uint8 RGB.

        Raises:
            DataError: it cannot be read.
        """
        return self.read(index)[0]

    def mask(self, index: int) -> np.ndarray:
        """Read a mask alone, (H,W) uint8 in {0…C−1, 255}.

        Raises:
            DataError: it cannot be read.
        """
        return self.read(index)[1]

    def image_files(self) -> list[Path]:
        """Return the files of the images, in their order; nothing where there are none."""
        return []

    def content(self, index: int, *, image: bool = True) -> MaskContent:
        """Count what a mask holds.

        Args:
            index: which.
            image: decode the image too, and check that the two belong together; a split that has
                no mask files always does.

        Raises:
            DataError: as `read`.
        """
        mask = self.read(index)[1]
        counts = histogram(mask)
        return MaskContent(size_of(mask), counts, counts, {}, self.ids[index])

    def remarks(self, indices: Sequence[int]) -> list[str]:
        """Return sentences on what is not wrong, but may not be meant, in these images."""
        return []

    def label_values(self, num_classes: int) -> dict[int, int]:
        """Return class index → its lowest value in the label files, for classes that have one."""
        if self.label_map is None:
            return {index: index for index in range(num_classes)}
        known, first = np.unique(self.label_map, return_index=True)
        values = dict(zip(known.tolist(), first.tolist(), strict=True))
        return {index: values[index] for index in range(num_classes) if index in values}


class PartOfSplit(Split):
    """Some images of a split.

    Args:
        split: the split.
        indices: of the images, in their order.
    """

    def __init__(self, split: Split, indices: Sequence[int]) -> None:
        self.split, self.indices = split, indices
        self.ids = [split.ids[index] for index in indices]
        self.label_map, self.has_mask_files = split.label_map, split.has_mask_files

    def read(self, index: int) -> Arrays:
        """Read an image and its mask."""
        return self.split.read(self.indices[index])

    def image(self, index: int) -> np.ndarray:
        """Read an image alone."""
        return self.split.image(self.indices[index])

    def mask(self, index: int) -> np.ndarray:
        """Read a mask alone."""
        return self.split.mask(self.indices[index])

    def image_files(self) -> list[Path]:
        """Return the files of the images, in their order; nothing where there are none."""
        files = self.split.image_files()
        return [files[index] for index in self.indices] if files else []

    def content(self, index: int, *, image: bool = True) -> MaskContent:
        """Count what a mask holds."""
        return self.split.content(self.indices[index], image=image)

    def remarks(self, indices: Sequence[int]) -> list[str]:
        """Return the sentences of the split on these images."""
        return self.split.remarks([self.indices[index] for index in indices])

    def label_values(self, num_classes: int) -> dict[int, int]:
        """Return class index → its lowest value in the label files."""
        return self.split.label_values(num_classes)


def histogram(mask: np.ndarray) -> np.ndarray:
    """Count the pixels of each value in a mask (H,W) uint8, (256,) int64."""
    return np.array(Image.fromarray(mask).histogram(), np.int64)  # twice as fast as bincount


def size_of(mask: np.ndarray) -> tuple[int, int]:
    """Return (width, height) of a mask (H,W)."""
    return mask.shape[1], mask.shape[0]


def listed(values: Sequence[int] | np.ndarray) -> str:
    """Write the first eight values of many in a row: "0, 1, 2"."""
    return ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")
