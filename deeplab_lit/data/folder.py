"""Your own images: a folder of images and masks. CamVid is one."""

from itertools import pairwise

import numpy as np
from PIL import Image

from deeplab_lit.data.datamodule import SegmentationData
from deeplab_lit.data.dataset import INVALID, FileSplit, Pair
from deeplab_lit.data.image import SUFFIXES, VOID, DataError
from deeplab_lit.data.palette import Colour, voc_colour
from deeplab_lit.data.paths import existing, given
from deeplab_lit.data.text import lines_of


class Folder(SegmentationData):
    """Images and masks in images/<split>/<id>.* and labels/<split>/<id>.png under `root`.

    classes.txt names the classes, one a line, in the order of the values in the masks: the first
    line is value 0. If the void value has a line too, that line is left out and the classes after
    it move up by one. Colours come from the masks' palette if they have one, else PASCAL VOC's.

    Args:
        root: the folder with images/, labels/ and classes.txt.
        void: the value in the masks that is not trained on nor scored; 255 always is void too.
    """

    ids_are_global = False

    def __init__(self, root: str | None = None, void: int = VOID, **kwargs) -> None:
        super().__init__(**kwargs)
        self.root, self.void = given(root), void
        if not 0 <= void <= VOID:
            raise DataError(f"--data.void must be in 0…255, got {void}")
        names = self._names()
        values = [value for value in range(len(names)) if value != void]
        if not values:
            raise DataError(f"{self.root / 'classes.txt'} names nothing but the void class")
        self.label_map = np.full(256, INVALID, np.uint8)
        self.label_map[[void, VOID]] = VOID
        self.label_map[values] = range(len(values))
        colours = self._colours()
        self.classes = {names[value]: colours[value] for value in values}

    def label(self, split: str) -> str:
        """With the name of the folder, since it is a data set of its own."""
        return f"Folder/{self.root.resolve().name}:{split}"

    def void_remedy(self, value: int) -> str:
        """As the parent; with the option, as long as it is free."""
        return f"--data.void {value}" if self.void == VOID else super().void_remedy(value)

    def split(self, name: str) -> FileSplit:
        """The images of images/`name`, in the order of their names."""
        folder = self.root / "images" / name
        images = sorted(
            (p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES),
            key=lambda p: (p.stem, p.suffix),
        )
        if not images:
            there = ", ".join(sorted(p.name for p in folder.parent.glob("*/"))) or "none"
            raise DataError(f"{folder}: no images there; folders beside it: {there}")
        for one, other in pairwise(images):
            if one.stem == other.stem:
                raise DataError(f"{one} and {other.name} would share a mask: rename one of them")
        masks = self.root / "labels" / name
        pairs = [Pair(p.stem, p, masks / f"{p.stem}.png") for p in images]
        return FileSplit(existing(pairs), len(self.classes), self.label_map)

    def _names(self) -> list[str]:
        path = self.root / "classes.txt"
        if not path.is_file():
            raise DataError(
                f"{path} does not exist. --data.root wants a folder with images/<split>/, "
                "labels/<split>/ and classes.txt, the names of the classes, one a line."
            )
        names = lines_of(path)
        if not names or len(names) > INVALID or len(set(names)) < len(names):
            raise DataError(f"{path}: expected 1 to {INVALID} different names, one a line")
        return names

    def _colours(self) -> list[Colour]:
        first = min((self.root / "labels").glob("*/*.png"), default=None)
        if first is not None:
            try:
                with Image.open(first) as mask:
                    palette = mask.getpalette()
            except OSError:  # the preflight says what is wrong with it
                palette = None
            if palette:
                palette += [0] * (768 - len(palette))
                return [tuple(palette[3 * i : 3 * i + 3]) for i in range(256)]
        return [voc_colour(i) for i in range(256)]
