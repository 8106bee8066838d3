"""Masks to train on instead of the ground truth: pictures, arrays of labels, or class maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeplab_lit.data.class_maps import MAP_SUFFIXES, ClassMaps, read_map_file
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.image import LOSSLESS, DataError, read_mask, size_of_image
from deeplab_lit.data.map_rule import LABEL_FILES, MapRule
from deeplab_lit.data.paths import Pair, masks_of
from deeplab_lit.data.predicted_maps import read_labels
from deeplab_lit.data.split import Split


def with_masks_of(
    folder: Path,
    split: Split,
    *,
    names: Callable[[Sequence[str]], Sequence[str]],
    num_classes: int,
    in_labels: bool,
    rule: MapRule | None,
) -> FileSplit:
    """Return the images of a split with the masks of a folder.

    Args:
        folder: with a mask for each image, of any suffix in LABEL_FILES.
        split: its own masks are not read.
        names: of the ids of images → the names of their masks.
        num_classes: C.
        in_labels: the masks hold the values of the data set's label files, not class indices.
        rule: for class maps. None: they are probabilities.

    Raises:
        DataError: masks are missing, or they are not of the kind that the other options say.
    """
    files = split.image_files()
    images = files or [Path(id) for id in split.ids]  # those that are drawn
    masks = masks_of(names(split.ids), images, folder, LABEL_FILES if files else LOSSLESS)
    if rule is not None and not any(mask.suffix.lower() in MAP_SUFFIXES for mask in masks):
        raise DataError(
            f"mask_rule {rule} is for class maps (.npy, .npz), but {folder} has masks as "
            f"{masks[0].name}: leave it out"
        )
    if in_labels and not split.label_values(num_classes):
        raise DataError(
            f"mask_values labels: the label files of this data set hold colors, and those of "
            f"{folder} have to hold values: leave it out, and give class indices"
        )
    pairs = [Pair(*pair) for pair in zip(split.ids, images, masks, strict=True)]
    if not files:
        return DrawnWithMasks(split, pairs, num_classes)
    return FileSplit(
        pairs,
        num_classes,
        split.label_map if in_labels else None,
        notes=split.remarks([]),
        read_values=MaskReader(num_classes, rule, maps=not in_labels),
    )


class DrawnWithMasks(FileSplit):
    """Images that are drawn, with mask files of class indices.

    Args:
        drawn: draws the images.
        pairs: of each image, in this order; its own file is none.
        num_classes: C.
    """

    def __init__(self, drawn: Split, pairs: Sequence[Pair], num_classes: int) -> None:
        super().__init__(pairs, num_classes)
        self.drawn = drawn

    def image(self, index: int) -> np.ndarray:
        """Draw an image."""
        return self.drawn.image(index)

    def image_files(self) -> list[Path]:
        """Return nothing: there are none."""
        return []

    def remarks(self, indices: Sequence[int]) -> list[str]:
        """Return nothing: no file of an image can be odd."""
        return []


@dataclass(frozen=True)
class MaskReader:
    """Reads the mask of an image from a file of any kind that `read_labels` reads.

    Args:
        num_classes: C.
        rule: for class maps. None: the most probable class.
        maps: take class maps too; else they are refused, since their labels are class indices.
    """

    num_classes: int
    rule: MapRule | None = None
    maps: bool = True

    def __call__(self, pair: Pair) -> np.ndarray:
        """Return the values of the pair's mask, (H,W) uint8.

        Raises:
            DataError: as `read_labels`; or the image cannot be read.
        """
        path = pair.mask
        if path.suffix.lower() not in MAP_SUFFIXES:
            return read_mask(path)
        if not self.maps and isinstance(read_map_file(path, self.num_classes), ClassMaps):
            raise DataError(f"{path}: class maps give class indices: leave out mask_values labels")
        return read_labels(path, size_of_image(pair.image), self.num_classes, self.rule)
