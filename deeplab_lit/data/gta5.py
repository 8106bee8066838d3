"""GTA5, "Playing for Data" (Richter et al., 2016): frames of a computer game, as source domain."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from deeplab_lit.data.check import Summary
from deeplab_lit.data.cityscapes import LABEL_IDS, Cityscapes, are_train_ids, label_map_of
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.decode import load_mat
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
from deeplab_lit.text import plural

FRAMES = 24_966
LICENSE_PLATE = 34  # the largest label id; Cityscapes calls it −1
MAT_KEYS = {"train": "trainIds", "val": "valIds", "test": "testIds"}  # split → name in split.mat
# black or white (15188, 17705), or left out by RobustNet as of one color (its issue 21)
KNOWN = {
    f"{number:05d}"
    for number in (
        *(12160, 12166, 12167, 12191, 12192, 12193, 12195, *range(12202, 12209), 15188),
        *(17705, 19993),
    )
}
Skip = Literal["none", "known"]
REMEDY = (
    "GTA5's label files are palette PNGs of Cityscapes' label ids (0…34; 34 is the license plate), "
    "from 01_labels.zip … 10_labels.zip of download.visinf.tu-darmstadt.de/data/from_games. Some "
    "copies hold colors, gray shades or train ids instead: put the official files there"
)


class GTA5(SegmentationData):
    """GTA5 ("Playing for Data"): 24,966 frames of a game, in Cityscapes' 19 classes.

    The official layout under `root`, its twenty archives in one folder: images/00001.png … and
    labels/00001.png …, palette PNGs whose 35 label ids are mapped to the 19 training ids as they
    are read. Splits: all, which is every frame that is there; train (12,403), val (6,382) and test
    (6,181) of split.mat, in `root` or in read_mapping/ there; any other name is that of a list in
    `root`, as adaptsegnet for adaptsegnet.txt, with a frame a line ("00001.png"). A mask of another
    size than its image, of which there are a few, is brought to the image's by nearest neighbor.

    Args:
        root: the folder with images/ and labels/.
        skip: "known" passes over the 17 frames that are known to be black, white or of one color;
            "none" keeps them, as the literature does.
        train_split: which split to train on.
        data: of SegmentationData.
    """

    classes = Cityscapes.classes
    subsets = Cityscapes.subsets
    official_ids = True
    parts = {"all": {"train", "val", "test"}}

    def __init__(
        self,
        root: str | None = None,
        skip: Skip = "none",
        *,
        train_split: str = "all",
        **data: Any,
    ) -> None:
        super().__init__(train_split=train_split, **data)
        if skip not in get_args(Skip):
            raise DataError(f"--data.skip must be none or known, got {skip}")
        self.root, self.skip = require_root(root), skip

    def split(self, name: str) -> FileSplit:
        """List the frames of a split with their labels, in the order of its list."""
        pairs, notes = self._pairs(name)
        if not (self.root / "labels").is_dir():
            raise DataError(f"{self.root / 'labels'}: no such folder. {self._elsewhere('labels')}")
        check_files_exist(pairs)
        if name == "all":
            labeled = {pair.mask for pair in pairs} | {self._mask(id) for id in KNOWN}
            left = [p for p in matching(self.root / "labels", "*.png") if p not in labeled]
            if left:
                notes = [*notes, passed_over(self.root / "labels", left, "no image of that name")]
        return FileSplit(
            pairs,
            len(self.classes),
            label_map_of(LICENSE_PLATE),
            notes=notes,
            remedy=REMEDY,
            fit_masks=True,
        )

    def images_of(self, name: str) -> ImageFiles:
        """List the frames of a split, whether there are labels or not."""
        pairs, _ = self._pairs(name)
        images = [pair.image for pair in pairs]
        refuse_missing(images)
        return ImageFiles([pair.id for pair in pairs], images, label_map_of(LICENSE_PLATE))

    def odd_values(self, found: Summary) -> Finding | None:
        """Find train ids in the label files, and palettes that give values another class."""
        if are_train_ids(found.values):
            return Finding(
                f"{found.title}: the {found.number:,} label files looked at hold nothing but 0…18 "
                "and 255: these are train ids, where label ids are expected (road is 7, not 0). "
                + REMEDY,
                proved=True,
            )
        names = {color: name for name, color in self.classes.items()}
        for (value, color), file in found.colors.items():
            if color in names and value != _label_id(names[color]):
                return Finding(
                    f"{file}: value {value} has the color of {names[color]}, whose label id is "
                    f"{_label_id(names[color])}; was it converted from a picture in colors? "
                    + REMEDY,
                    proved=True,
                )
        return None

    def _pairs(self, name: str) -> tuple[list[Pair], list[str]]:
        """Return the frames of a split, whether they exist or not, and what to know of them."""
        ids = self._ids(name)
        known = sorted(KNOWN.intersection(ids))
        notes = []
        if known and self.skip == "known":
            ids = [id for id in ids if id not in KNOWN]
            notes = [f"{plural(len(known), 'frame')} passed over by --data.skip known"]
        elif known:
            notes = [
                f"{len(known)} of the frames are known to be black, white or of one color (as "
                f"{known[0]}), and are kept, as in the literature; --data.skip known passes them "
                "over"
            ]
        images = self.root / "images"
        return [Pair(id, images / f"{id}.png", self._mask(id)) for id in ids], notes

    def _mask(self, id: str) -> Path:
        return self.root / "labels" / f"{id}.png"

    def _ids(self, name: str) -> list[str]:
        path = self.root / f"{name}.txt"
        if name == "all":
            return [image.stem for image in self._frames()]
        if name in MAT_KEYS:
            if path.is_file():
                raise DataError(
                    f"{path}: a list cannot be called {name}, for that split is the one of "
                    "split.mat; give the list another name, as adaptsegnet.txt"
                )
            return self._official()[name]
        if not path.is_file():
            raise DataError(
                f"GTA5 {name}: splits are all, {', '.join(MAT_KEYS)}, and the names of lists as "
                f"{path}, which does not exist"
            )
        return listed_frames(path)

    def _frames(self) -> list[Path]:
        images = matching(self.root / "images", "*.png")
        if not images:
            raise DataError(
                f"{self.root / 'images'}: no images (*.png) there. {self._elsewhere('images')}"
            )
        return images

    def _elsewhere(self, kind: str) -> str:
        """Say where else a part of the archives lies, and what to do."""
        if apart := sorted(self.root.glob(f"*_{kind}/{kind}")):
            return (
                f"Archives that are unpacked each into a folder of its own ({apart[0]}) belong "
                f"together: move all of them into {self.root / kind}"
            )
        return (
            f"--data.root is the folder in which images/ and labels/ of all twenty archives lie. "
            f"To put it together: python -m deeplab_lit.prepare gta5 --root {self.root}"
        )

    def _official(self) -> dict[str, list[str]]:
        """Read split.mat: split → its frames."""
        places = [self.root / "split.mat", self.root / "read_mapping/split.mat"]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise DataError(
                f"{places[0]} does not exist, nor {places[1]}: it says which frames are train, val "
                "and test, and comes in read_mapping.zip (…/from_games/code/). Split all needs "
                "none; to score on another domain: --val_data Cityscapes"
            )
        numbers = {split: _numbers(path, key) for split, key in MAT_KEYS.items()}
        often = Counter(number for those in numbers.values() for number in those)
        if twice := [number for number, times in often.items() if times > 1]:
            raise DataError(
                f"{path}: {plural(len(twice), 'frame')} twice or more, as {twice[0]}; expected "
                "each in one of train, val and test. Unpack read_mapping.zip again"
            )
        return {split: [f"{number:05d}" for number in those] for split, those in numbers.items()}


def _label_id(name: str) -> int:
    return LABEL_IDS[list(Cityscapes.classes).index(name)]


def _numbers(path: Path, key: str) -> list[int]:
    try:
        values = np.asarray(load_mat(path, key), np.float64).ravel()
    except Exception as error:  # SciPy has no common class for what a bad file makes it raise
        raise DataError(
            f"{path}: no list {key} can be read from it ({type(error).__name__}: {error}). Unpack "
            "read_mapping.zip again"
        ) from error
    is_frame = (values == np.rint(values)) & (values >= 1) & (values <= FRAMES)
    if not len(values) or not is_frame.all():
        odd = f"found {values[~is_frame][0]:g}" if len(values) else "found none"
        raise DataError(f"{path}, {key}: expected numbers of frames, 1…{FRAMES}, {odd}")
    return values.astype(int).tolist()
