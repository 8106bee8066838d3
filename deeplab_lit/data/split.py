"""The labeled images of one split of a data set.

Letters: C classes · H×W image.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from deeplab_lit.data.classes import unknown_colors
from deeplab_lit.data.decode import UNREADABLE, opened, orientation_of
from deeplab_lit.data.image import (
    DataError,
    read_colors,
    read_image,
    read_mask,
    read_palette,
    unique_colors,
)
from deeplab_lit.data.paths import Pair
from deeplab_lit.text import plural
from deeplab_lit.types import VOID, Color

TURNED = (
    "EXIF orientation {} turns or mirrors the image as it is read, and no mask. If the masks were "
    "drawn on the pixels as they are stored, remove the orientation (exiftool -Orientation= FILE)"
)
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
    """

    ids: Sequence[str]
    label_map: np.ndarray | None = None

    @abstractmethod
    def read(self, index: int) -> Arrays:
        """Read an image (H,W,3) uint8 RGB and its mask (H,W) uint8 in {0…C−1, 255}."""

    def image(self, index: int) -> np.ndarray:
        """Read an image alone, (H,W,3) uint8 RGB.

        Raises:
            DataError: it cannot be read.
        """
        return self.read(index)[0]

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
        counts = _histogram(mask)
        return MaskContent(_size(mask), counts, counts, {}, self.ids[index])

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


class FileSplit(Split):
    """Image files with mask files.

    Args:
        pairs: the files.
        num_classes: C.
        label_map: (256,) uint8, from the values in the files to class indices or 255; a value that
            the data set does not have maps to INVALID. Without it the files hold class indices.
        color_map: (2²⁴,) uint8, the same from colors as 0xBBGGRR, for files that hold colors.
        passed_over: sentences on files that lie there but are not read.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        num_classes: int,
        label_map: np.ndarray | None = None,
        color_map: np.ndarray | None = None,
        passed_over: Sequence[str] = (),
    ) -> None:
        self.pairs = pairs
        self.ids = [pair.id for pair in pairs]
        self.num_classes = num_classes
        self.label_map = label_map
        self.color_map = color_map
        self.passed_over = passed_over

    def read(self, index: int) -> Arrays:
        """Decode, map and check one pair.

        Raises:
            DataError: a file that cannot be read, sizes that differ, a value that is neither a
                class nor void.
        """
        pair = self.pairs[index]
        image, raw = read_image(pair.image), self._raw(pair.mask)
        _check_sizes(pair, image, raw)
        mask = raw if self.label_map is None else self.label_map[raw]
        if (mask + np.uint8(1)).max() > self.num_classes:  # 255 + 1 wraps to 0: void is fine
            raise self._wrong_values(pair.mask, _histogram(raw))
        return image, mask

    def image_files(self) -> list[Path]:
        """Return the files of the images, in their order."""
        return [pair.image for pair in self.pairs]

    def image(self, index: int) -> np.ndarray:
        """Decode an image file; its mask is not looked at."""
        return read_image(self.pairs[index].image)

    def label_values(self, num_classes: int) -> dict[int, int]:
        """Return class index → its lowest value in the files; nothing where those hold colors."""
        return {} if self.color_map is not None else super().label_values(num_classes)

    def content(self, index: int, *, image: bool = True) -> MaskContent:
        """Count what a mask holds; without `image`, nothing but the mask file is read."""
        pair = self.pairs[index]
        raw = self._raw(pair.mask)
        if image:
            _check_sizes(pair, read_image(pair.image), raw)
        values = _histogram(raw)
        indices = values
        if self.label_map is not None:
            indices = np.zeros(256, np.int64)
            np.add.at(indices, self.label_map, values)
        if indices[self.num_classes : VOID].any():
            raise self._wrong_values(pair.mask, values)
        palette = read_palette(pair.mask) if self.color_map is None else None
        unique = unique_colors(palette)
        colors = {v: unique[v] for v in np.flatnonzero(values).tolist() if v in unique}
        return MaskContent(_size(raw), values, indices, colors, str(pair.mask))

    def remarks(self, indices: Sequence[int]) -> list[str]:
        """Name files that are passed over, and images that EXIF may turn apart from their masks."""
        turned = [p.image for p in (self.pairs[i] for i in indices) if _may_be_turned(p.image)]
        if not turned:
            return list(self.passed_over)
        more = f" and {plural(len(turned) - 1, 'more image')}" if len(turned) > 1 else ""
        return [*self.passed_over, f"{turned[0]}{more}: {TURNED.format(_orientation(turned[0]))}"]

    def _raw(self, path: Path) -> np.ndarray:
        """Read values (H,W) uint8; where the file holds colors, class indices or 255."""
        if self.color_map is None:
            return read_mask(path)
        colors = read_colors(path)
        mask = self.color_map[colors]
        unknown = mask == INVALID
        if unknown.any():
            raise DataError(f"{path}: {unknown_colors(colors[unknown])}")
        return mask

    def _wrong_values(self, path: Path, values: np.ndarray) -> DataError:
        present = np.flatnonzero(values)
        index = present if self.label_map is None else self.label_map[present]
        bad = present[(index >= self.num_classes) & (index != VOID)]
        return DataError(
            f"{path}: mask value {listed(bad)}, which is neither one of the {self.num_classes} "
            f"classes nor void; the mask holds {listed(present)}. Correct the mask, the list of "
            "classes, or the void value."
        )


def _check_sizes(pair: Pair, image: np.ndarray, mask: np.ndarray) -> None:
    if image.shape[:2] != mask.shape:
        turned = _orientation(pair.image)
        raise DataError(
            f"{pair.mask}: mask of {mask.shape[1]}×{mask.shape[0]} pixels for an image of "
            f"{image.shape[1]}×{image.shape[0]} ({pair.image}); they must be the same size"
            + (f". {TURNED.format(turned)}" if turned > 1 else "")
        )


def _orientation(image: Path) -> int:
    try:
        return orientation_of(image.read_bytes())
    except UNREADABLE:
        return 1


def _may_be_turned(image: Path) -> bool:
    turned = _orientation(image)
    if turned < 5:  # 180° or mirrored: the size stays
        return turned > 1
    return len(set(opened(image.read_bytes()).size)) == 1


def _histogram(mask: np.ndarray) -> np.ndarray:
    """Count the pixels of each value in a mask (H,W) uint8, (256,) int64."""
    return np.array(Image.fromarray(mask).histogram(), np.int64)  # twice as fast as bincount


def _size(mask: np.ndarray) -> tuple[int, int]:
    return mask.shape[1], mask.shape[0]


def listed(values: Sequence[int] | np.ndarray) -> str:
    """Write the first eight values of many in a row: "0, 1, 2"."""
    return ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")
