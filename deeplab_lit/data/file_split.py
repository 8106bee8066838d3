"""Splits whose images are files, with mask files or without.

Letters: C classes · H×W image.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

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
    size_in_file,
    size_of_image,
    unique_colors,
)
from deeplab_lit.data.paths import Pair
from deeplab_lit.data.split import (
    INVALID,
    Arrays,
    MaskContent,
    Split,
    histogram,
    listed,
    size_of,
)
from deeplab_lit.text import plural
from deeplab_lit.types import VOID

TURNED = (
    "EXIF orientation {} turns or mirrors the image as it is read, and no mask. If the masks were "
    "drawn on the pixels as they are stored, remove the orientation (exiftool -Orientation= FILE)"
)
REMEDY = "Correct the mask, the list of classes, or the void value (of a Folder, --data.void)."


class FileSplit(Split):
    """Image files with mask files.

    Args:
        pairs: the files.
        num_classes: C.
        label_map: (256,) uint8, from the values in the files to class indices or 255; a value that
            the data set does not have maps to INVALID. Without it the files hold class indices.
        color_map: (2²⁴,) uint8, the same from colors as 0xBBGGRR, for files that hold colors.
        notes: sentences that `remarks` begins with, as on files that are not read.
        read_values: reads the values of the mask of a pair, (H,W) uint8. None: `read_mask`.
        remedy: the end of a message about a mask in colors, or with wrong values: what the data
            set's masks are, and where to get them. None: something for any mask.
        fit_masks: a mask of another size than its image is brought to the image's by nearest
            neighbor, and counted in `remarks`; else it is refused.
    """

    has_mask_files = True

    def __init__(
        self,
        pairs: Sequence[Pair],
        num_classes: int,
        label_map: np.ndarray | None = None,
        color_map: np.ndarray | None = None,
        notes: Sequence[str] = (),
        *,
        read_values: Callable[[Pair], np.ndarray] | None = None,
        remedy: str | None = None,
        fit_masks: bool = False,
    ) -> None:
        self.pairs = pairs
        self.ids = [pair.id for pair in pairs]
        self.num_classes = num_classes
        self.label_map, self.color_map = label_map, color_map
        self.notes = notes
        self.read_values, self.remedy, self.fit_masks = read_values, remedy, fit_masks

    def read(self, index: int) -> Arrays:
        """Decode, map and check one pair.

        Raises:
            DataError: a file that cannot be read, sizes that differ, a value that is neither a
                class nor void.
        """
        pair = self.pairs[index]
        image, raw = self.image(index), self._raw(pair)
        if self.fit_masks:
            raw = _resized(raw, *image.shape[:2])
        _check_sizes(pair, image, raw)
        return image, self._mapped(pair.mask, raw)

    def image_files(self) -> list[Path]:
        """Return the files of the images, in their order."""
        return [pair.image for pair in self.pairs]

    def image(self, index: int) -> np.ndarray:
        """Decode an image file; its mask is not looked at."""
        return read_image(self.pairs[index].image)

    def mask(self, index: int) -> np.ndarray:
        """Decode, map and check a mask file; its image is looked at for its size alone."""
        pair = self.pairs[index]
        raw = self._raw(pair)
        if self.fit_masks:
            raw = _resized(raw, *size_of_image(pair.image))
        return self._mapped(pair.mask, raw)

    def label_values(self, num_classes: int) -> dict[int, int]:
        """Return class index → its lowest value in the files; nothing where those hold colors."""
        return {} if self.color_map is not None else super().label_values(num_classes)

    def content(self, index: int, *, image: bool = True) -> MaskContent:
        """Count what a mask holds; without `image`, nothing but the mask file is read."""
        pair = self.pairs[index]
        raw = self._raw(pair)
        if image:
            pixels = self.image(index)
            if not self.fit_masks:
                _check_sizes(pair, pixels, raw)
        values = histogram(raw)
        indices = values
        if self.label_map is not None:
            indices = np.zeros(256, np.int64)
            np.add.at(indices, self.label_map, values)
        if indices[self.num_classes : VOID].any():
            raise self._wrong_values(pair.mask, values)
        palette = read_palette(pair.mask) if self.color_map is None else None
        unique = unique_colors(palette)
        colors = {v: unique[v] for v in np.flatnonzero(values).tolist() if v in unique}
        return MaskContent(size_of(raw), values, indices, colors, str(pair.mask))

    def remarks(self, indices: Sequence[int]) -> list[str]:
        """Say the notes, then which masks are resized, and which images EXIF may turn."""
        said, pairs = list(self.notes), [self.pairs[i] for i in indices]
        if self.fit_masks and (fitted := [pair for pair in pairs if _sizes_differ(pair)]):
            mask, image = (size_in_file(path) for path in (fitted[0].mask, fitted[0].image))
            said.append(
                f"{len(fitted)} of the {plural(len(pairs), 'pair')} looked at have a mask of "
                "another size than the image; it is brought to the image's by nearest neighbor "
                f"({fitted[0].mask}: {mask[0]}×{mask[1]}, its image: {image[0]}×{image[1]})"
            )
        if turned := [pair.image for pair in pairs if _may_be_turned(pair.image)]:
            more = f" and {plural(len(turned) - 1, 'more image')}" if len(turned) > 1 else ""
            said.append(f"{turned[0]}{more}: {TURNED.format(_orientation(turned[0]))}")
        return said

    def _raw(self, pair: Pair) -> np.ndarray:
        """Read values (H,W) uint8; where the file holds colors, class indices or 255."""
        if self.read_values is not None:
            return self.read_values(pair)
        if self.color_map is None:
            return read_mask(pair.mask, self.remedy)
        colors = read_colors(pair.mask)
        mask = self.color_map[colors]
        unknown = mask == INVALID
        if unknown.any():
            raise DataError(f"{pair.mask}: {unknown_colors(colors[unknown])}")
        return mask

    def _mapped(self, path: Path, raw: np.ndarray) -> np.ndarray:
        """Return class indices for the values (H,W) of a mask file.

        Raises:
            DataError: a value that is neither a class nor void.
        """
        mask = raw if self.label_map is None else self.label_map[raw]
        if (mask + np.uint8(1)).max() > self.num_classes:  # 255 + 1 wraps to 0: void is fine
            raise self._wrong_values(path, histogram(raw))
        return mask

    def _wrong_values(self, path: Path, values: np.ndarray) -> DataError:
        present = np.flatnonzero(values)
        index = present if self.label_map is None else self.label_map[present]
        bad = present[(index >= self.num_classes) & (index != VOID)]
        return DataError(
            f"{path}: mask value {listed(bad)}, which is neither one of the {self.num_classes} "
            f"classes nor void; the mask holds {listed(present)}. {self.remedy or REMEDY}"
        )


class ImageFiles(Split):
    """Image files whose masks are not read: every pixel is void.

    Args:
        ids: a name for each image, unique.
        files: their files.
        label_map: of the masks that there may be, as in `FileSplit`.
        notes: sentences on files that are not read.
    """

    def __init__(
        self,
        ids: Sequence[str],
        files: Sequence[Path],
        label_map: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.ids, self.files, self.label_map, self.notes = ids, files, label_map, notes

    def image_files(self) -> list[Path]:
        """Return the files, in their order."""
        return list(self.files)

    def remarks(self, indices: Sequence[int]) -> list[str]:
        """Say the notes."""
        return list(self.notes)

    def read(self, index: int) -> Arrays:
        """Read an image, and make a mask of void."""
        image = read_image(self.files[index])
        return image, np.full(image.shape[:2], VOID, np.uint8)


def _check_sizes(pair: Pair, image: np.ndarray, mask: np.ndarray) -> None:
    if image.shape[:2] != mask.shape:
        turned = _orientation(pair.image)
        raise DataError(
            f"{pair.mask}: mask of {mask.shape[1]}×{mask.shape[0]} pixels for an image of "
            f"{image.shape[1]}×{image.shape[0]} ({pair.image}); they must be the same size"
            + (f". {TURNED.format(turned)}" if turned > 1 else "")
        )


def _sizes_differ(pair: Pair) -> bool:
    """Return whether a mask has another size than its image, by the heads of their files."""
    try:
        return size_in_file(pair.mask) != size_in_file(pair.image)
    except UNREADABLE:  # which reading says better
        return False


def _resized(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


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
