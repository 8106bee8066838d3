"""SYNTHIA-RAND-CITYSCAPES (Ros et al., 2016): rendered street scenes, as source domain."""

from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from deeplab_lit.data.check import Summary
from deeplab_lit.data.cityscapes import Cityscapes
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.decode import UNREADABLE, exact
from deeplab_lit.data.file_split import FileSplit, ImageFiles
from deeplab_lit.data.image import DataError
from deeplab_lit.data.meaning import Finding
from deeplab_lit.data.paths import (
    Pair,
    check_files_exist,
    listed_frames,
    matching,
    passed_over,
    refuse_missing,
    require_root,
)
from deeplab_lit.data.split import INVALID
from deeplab_lit.types import VOID

# name → class in the label files; 0 void, 13 parking slot, 14 road work and 22 lane marking have
# none of Cityscapes' classes
CLASS_OF = {
    "road": 3,
    "sidewalk": 4,
    "building": 2,
    "wall": 21,
    "fence": 5,
    "pole": 7,
    "traffic light": 15,
    "traffic sign": 9,
    "vegetation": 6,
    "terrain": 16,
    "sky": 1,
    "person": 10,
    "rider": 17,
    "car": 8,
    "truck": 18,
    "bus": 19,
    "train": 20,
    "motorcycle": 12,
    "bicycle": 11,
}
LANE_MARKING = 22  # the largest class
ABSENT = {13: "parking slot", 16: "terrain", 18: "truck", 20: "train"}  # in no official label
RANGES = {"train": range(9000), "val": range(9000, 9400)}  # of MaxSquareLoss' lists
LaneMarking = Literal["void", "road"]
OFFICIAL = (
    "GT/LABELS of SYNTHIA_RAND_CITYSCAPES.rar holds 16-bit PNGs of three channels, with the class "
    "(0…22) in red and the instance in green. Put the official file there"
)
LOST = (
    "what reads or writes 8 bits (Pillow, OpenCV without IMREAD_UNCHANGED) keeps the upper byte "
    "of each channel alone, which is 0 for every class"
)


class Synthia(SegmentationData):
    """SYNTHIA-RAND-CITYSCAPES: 9,400 rendered frames, in 16 of Cityscapes' 19 classes.

    The official layout under `root` or `root`/RAND_CITYSCAPES: RGB/0000000.png … and
    GT/LABELS/0000000.png …, 16-bit PNGs with the class in the red channel. Splits: all, which is
    every frame that is there; train (0…8999) and val (9000…9399), as MaxSquareLoss has them; any
    other name is that of a list beside RGB/, as bdl for bdl.txt, with a frame a line
    ("RGB/0000000.png"). Terrain, truck and train occur in no label.

    Args:
        root: the folder with RGB/ and GT/, or the one that holds RAND_CITYSCAPES.
        lane_marking: what class 22 is. "void", as in nearly all published code; "road", as in
            CBST's and CRST's.
        train_split: which split to train on.
        data: of SegmentationData.
    """

    classes = Cityscapes.classes
    subsets = Cityscapes.subsets
    official_ids = True
    never = frozenset({"terrain", "truck", "train"})
    parts = {"all": {"train", "val"}}

    def __init__(
        self,
        root: str | None = None,
        lane_marking: LaneMarking = "void",
        *,
        train_split: str = "all",
        **data: Any,
    ) -> None:
        super().__init__(train_split=train_split, **data)
        if lane_marking not in get_args(LaneMarking):
            raise DataError(f"--data.lane_marking must be void or road, got {lane_marking}")
        self.root = _find(require_root(root))
        self.label_map = np.full(256, INVALID, np.uint8)
        self.label_map[: LANE_MARKING + 1] = VOID
        self.label_map[[CLASS_OF[name] for name in self.classes]] = range(len(self.classes))
        if lane_marking == "road":
            self.label_map[LANE_MARKING] = list(self.classes).index("road")

    def split(self, name: str) -> FileSplit:
        """List the frames of a split with their labels, in the order of its list."""
        pairs, notes = self._pairs(name), []
        check_files_exist(pairs)
        if name == "all":
            labeled = {pair.mask for pair in pairs}
            labels = self.root / "GT/LABELS"
            if left := [path for path in matching(labels, "*.png") if path not in labeled]:
                notes = [passed_over(labels, left, "no image of that name")]
        return FileSplit(
            pairs,
            len(self.classes),
            self.label_map,
            notes=notes,
            read_values=_read_label,
            remedy=OFFICIAL,
        )

    def images_of(self, name: str) -> ImageFiles:
        """List the frames of a split, whether there are labels or not."""
        pairs = self._pairs(name)
        images = [pair.image for pair in pairs]
        refuse_missing(images)
        return ImageFiles([pair.id for pair in pairs], images, self.label_map)

    def odd_values(self, found: Summary) -> Finding | None:
        """Suspect classes that the official labels do not have."""
        there = [f"{value} ({name})" for value, name in ABSENT.items() if found.values[value]]
        if not there:
            return None
        return Finding(
            f"{found.title}: {', '.join(there)} occurs, which none of SYNTHIA-RAND-CITYSCAPES' "
            "labels holds. SYNTHIA's video sequences have other classes under these numbers",
            proved=False,
        )

    def _pairs(self, name: str) -> list[Pair]:
        """Return the frames of a split, whether they exist or not."""
        path = self.root / f"{name}.txt"
        if name in RANGES and path.is_file():
            raise DataError(
                f"{path}: a list cannot be called {name}, for that split is frames "
                f"{RANGES[name][0]}…{RANGES[name][-1]}; give the list another name, as bdl.txt"
            )
        if name == "all":
            ids = [image.stem for image in matching(self.root / "RGB", "*.png")]
        elif name in RANGES:
            ids = [f"{number:07d}" for number in RANGES[name]]
        elif path.is_file():
            ids = listed_frames(path)
        else:
            raise DataError(
                f"Synthia {name}: splits are all, {', '.join(RANGES)}, and the names of lists as "
                f"{path}, which does not exist"
            )
        images, labels = self.root / "RGB", self.root / "GT/LABELS"
        return [Pair(id, images / f"{id}.png", labels / f"{id}.png") for id in ids]


def _read_label(pair: Pair) -> np.ndarray:
    return read_classes(pair.mask)


def read_classes(path: Path) -> np.ndarray:
    """Read the classes of a label file, (H,W) uint8 in 0…255: the red channel of its 16 bits.

    Raises:
        DataError: missing, damaged, or no such file: its classes may have been lost.
    """
    try:
        data = path.read_bytes()
        with exact(data) as image:
            image_format, mode = image.format, image.mode
    except UNREADABLE as error:
        raise DataError(
            f"{path}: cannot be read as a label ({str(error) or type(error).__name__}). {OFFICIAL}"
        ) from error
    if image_format != "PNG" or data[24] != 16:
        why = (
            f"has been saved in 8 bits and with that lost its classes: {LOST}"
            if mode in ("RGB", "RGBA")
            else "has been converted, as BDL's synthia_mapped_to_cityscapes, which still holds "
            "SYNTHIA's classes; nothing in it says what its values mean"
        )
        raise DataError(f"{path}: this label (8 bits, {mode}) {why}. {OFFICIAL}")
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if bgr is None or bgr.ndim != 3:
        raise DataError(f"{path}: this label ({mode}) has no three channels. {OFFICIAL}")
    red = bgr[..., 2]  # OpenCV's order is blue, green, red
    highest = int(red.max())
    if highest == 0:
        blue = 0 < int(bgr[..., 0].max()) <= LANE_MARKING
        why = (
            "its red channel is 0 everywhere, and blue is not: red and blue have been exchanged"
            if blue
            else f"class 0 (void) everywhere, so its classes are lost: {LOST}"
        )
        raise DataError(f"{path}: {why}. {OFFICIAL}")
    if highest > VOID:
        raise DataError(f"{path}: class {highest}, expected 0…{LANE_MARKING}. {OFFICIAL}")
    return red.astype(np.uint8)


def _find(root: Path) -> Path:
    """Return the folder with RGB/, given itself or the one that holds RAND_CITYSCAPES.

    Raises:
        DataError: it is not there.
    """
    for folder in (root, root / "RAND_CITYSCAPES"):
        if (folder / "RGB").is_dir():
            return folder
    prepare = f"python -m deeplab_lit.prepare synthia --root {root}"
    if odd := next((path for path in root.glob("*RGB\\*") if path.is_file()), None):
        raise DataError(
            f"{root}: files as {odd.name!r} have backslashes in their names where folders should "
            f"be: some versions of unrar write them so. To put them into folders: {prepare}"
        )
    raise DataError(
        f"--data.root {root}: no SYNTHIA-RAND-CITYSCAPES there (no RGB/ or RAND_CITYSCAPES/RGB/). "
        f"To unpack its archive: {prepare}"
    )
