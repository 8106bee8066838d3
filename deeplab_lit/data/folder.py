"""Your own images: a folder of images and masks. CamVid is one."""

from copy import copy
from itertools import pairwise
from typing import Any

import numpy as np

from deeplab_lit.data.classes import ClassLine, read_class_list, voc_color
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.decode import UNREADABLE, opened
from deeplab_lit.data.file_split import FileSplit, ImageFiles
from deeplab_lit.data.image import LOSSLESS, SUFFIXES, DataError
from deeplab_lit.data.paths import (
    NO_IMAGE,
    Pair,
    files_below,
    is_hidden,
    masks_of,
    passed_over,
    require_root,
)
from deeplab_lit.data.split import INVALID, Split
from deeplab_lit.types import VOID, Classes, Color


class Folder(SegmentationData):
    """Images and masks in images/<split>/<id>.* and labels/<split>/<id>.png under `root`.

    Folders in images/<split> count, with the same in labels/<split>. classes.txt names the classes
    in one of three forms: the names, one a line, in the order of the values in the masks (the first
    line is value 0); `name = value`; or `name  red green blue` for masks of these colors. If the
    void value has a line too, that line is left out and the classes after it move up by one; so is
    a line called void, ignore or unlabeled beside values or colors. Without colors there, they come
    from the masks' palette if they have one, else PASCAL VOC's.

    Args:
        root: the folder with images/, labels/ and classes.txt.
        void: the value in the masks that is not trained on nor scored; 255 always is void too.
    """

    def __init__(self, root: str | None = None, void: int = VOID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.void = require_root(root), void
        if not 0 <= void <= VOID:
            raise DataError(f"--data.void must be in 0…255, got {void}")
        lines = self._lines()
        colored = lines[0].color is not None
        if colored and void != VOID:
            raise DataError(
                f"--data.void {void} is a value, but {self.root / 'classes.txt'} gives colors: "
                'write a line "void red green blue" there'
            )
        kept = [line for line in lines if not line.is_void and (colored or line.value != void)]
        if not kept:
            raise DataError(f"{self.root / 'classes.txt'} names nothing but the void class")
        at_255 = next(
            (line.name for line in lines if line.value == VOID and not line.is_void), None
        )
        if at_255:
            raise DataError(
                f"{self.root / 'classes.txt'}, {at_255}: value 255 is void and cannot be a class. "
                "Write another value in the masks, or call the line void"
            )
        label_map = np.full(2**24 if colored else 256, INVALID, np.uint8)
        if not colored:
            label_map[[void, VOID]] = VOID
        label_map[[_key(line) for line in lines if line.is_void]] = VOID
        label_map[[_key(line) for line in kept]] = range(len(kept))
        self.label_map = None if colored else label_map
        self.color_map = label_map if colored else None
        self.named_alone = not colored and all(line.value == i for i, line in enumerate(lines))
        colors = [] if colored else self._colors()
        self.classes = {line.name: line.color or colors[line.value or 0] for line in kept}

    @property
    def id_space(self) -> None:
        """Return None: a name stands for another image in each split and folder."""
        return None

    def label(self, split: str) -> str:
        """Return a split's name with that of the folder, since it is a data set of its own."""
        return f"Folder/{self.root.resolve().name}:{split}"

    def void_remedy(self, value: int) -> str:
        """Say it as the parent does; by the option while that is free, or by the name of a line."""
        if not self.named_alone:
            return 'call its line "void" in classes.txt'
        return f"--data.void {value}" if self.void == VOID else super().void_remedy(value)

    def split(self, name: str) -> FileSplit:
        """List the images of images/`name`, in the order of their names, with their masks."""
        images, masks = self.images_of(name), self.root / "labels" / name
        files = masks_of(images.ids, images.files, masks)
        pairs = [Pair(*pair) for pair in zip(images.ids, images.files, files, strict=True)]
        used, notes = set(files), list(images.notes)
        if unused := [path for path in files_below(masks) if path not in used]:
            notes.append(passed_over(masks, unused, "no image of that name"))
        return FileSplit(pairs, len(self.classes), self.label_map, self.color_map, notes)

    def images_of(self, name: str) -> ImageFiles:
        """List the images of images/`name`, whether there are masks or not."""
        folder = self.root / "images" / name
        files = list(files_below(folder))
        named = {p: p.relative_to(folder).with_suffix("").as_posix() for p in files}
        images = sorted(
            (p for p in files if p.suffix.lower() in SUFFIXES), key=lambda p: (named[p], p.suffix)
        )
        if not images:
            there = sorted(p.name for p in folder.parent.glob("*/") if not is_hidden(p.name))
            raise DataError(
                f"{folder}: no images there; folders beside it: {', '.join(there) or 'none'}"
            )
        for one, other in pairwise(images):
            if named[one] == named[other]:
                raise DataError(f"{one} and {other.name} would share a mask: rename one of them")
        others = [p for p in files if p.suffix.lower() not in SUFFIXES]
        notes = [passed_over(folder, others, NO_IMAGE)] if others else []
        in_colors = np.full(256, INVALID, np.uint8)  # no value stands for a class
        label_map = in_colors if self.label_map is None else self.label_map
        return ImageFiles([named[p] for p in images], images, label_map, notes)

    def _lines(self) -> list[ClassLine]:
        path = self.root / "classes.txt"
        if not path.exists():
            raise DataError(
                f"{path} does not exist. --data.root wants a folder with images/<split>/, "
                "labels/<split>/ and classes.txt, the names of the classes, one a line."
            )
        return read_class_list(path)

    def _colors(self) -> list[Color]:
        masks = (p for p in files_below(self.root / "labels") if p.suffix.lower() in LOSSLESS)
        first = min(masks, default=None)
        if first is not None:
            try:
                with opened(first.read_bytes()) as mask:
                    palette = mask.getpalette()
            except UNREADABLE:  # the preflight says what is wrong with it
                palette = None
            if palette:
                palette += [0] * (3 * 256 - len(palette))
                channels = iter(palette)
                return list(zip(channels, channels, channels, strict=False))
        return [voc_color(i) for i in range(256)]


class Images(SegmentationData):
    """A folder of images without labels, for `--unlabeled_data`. Folders in it count too.

    Args:
        root: the folder.
        data: of SegmentationData; masks of `mask_dir` hold the indices of the classes trained.
    """

    classes: Classes = {}

    def __init__(self, root: str | None = None, **data: Any) -> None:
        super().__init__(**data)
        self.root = require_root(root)

    @property
    def id_space(self) -> None:
        """Return None: a name stands for another image in each folder."""
        return None

    def of_classes(self, classes: Classes) -> "Images":
        """Return the same images as a data set of these classes, of which `mask_dir` has masks."""
        same = copy(self)
        same.classes = classes
        return same

    def split(self, name: str) -> Split:
        """Refuse to name a labeled split.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"{self.root}: Images has no labels; it is for --unlabeled_data. Images with masks are "
            "--data Folder"
        )

    def images_of(self, name: str) -> ImageFiles:
        """List all images below `root`, in the order of their names, whatever the split is called.

        Raises:
            DataError: there are none.
        """
        files = [p for p in files_below(self.root) if p.suffix.lower() in SUFFIXES]
        if not files:
            raise DataError(f"{self.root}: no images there")
        return ImageFiles([p.relative_to(self.root).as_posix() for p in files], files)


def _key(line: ClassLine) -> int:
    """Return the place of a class in the label map."""
    if line.color is None:
        return line.value or 0
    red, green, blue = line.color
    return blue << 16 | green << 8 | red
