"""COCO-Stuff (Caesar et al., 2018): things and stuff in the images of COCO."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_lit.data.check import Summary
from deeplab_lit.data.classes import voc_color
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.image import DataError
from deeplab_lit.data.meaning import Finding
from deeplab_lit.data.paths import Pair, check_files_exist, listed_ids, matching, require_root

# labels 1…182 of the authors' labels.txt, here from 0 as in their PNGs
NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "street sign", "stop sign", "parking meter", "bench"),
    *("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    *("hat", "backpack", "umbrella", "shoe", "eye glasses", "handbag", "tie", "suitcase"),
    *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove"),
    *("skateboard", "surfboard", "tennis racket", "bottle", "plate", "wine glass", "cup"),
    *("fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli"),
    *("carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed"),
    *("mirror", "dining table", "window", "desk", "toilet", "door", "tv", "laptop", "mouse"),
    *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "blender", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush", "hair brush", "banner", "blanket", "branch", "bridge"),
    *("building-other", "bush", "cabinet", "cage", "cardboard", "carpet", "ceiling-other"),
    *("ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard", "curtain"),
    *("desk-stuff", "dirt", "door-stuff", "fence", "floor-marble", "floor-other"),
    *("floor-stone", "floor-tile", "floor-wood", "flower", "fog", "food-other", "fruit"),
    *("furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves", "light"),
    *("mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper"),
    *("pavement", "pillow", "plant-other", "plastic", "platform", "playingfield", "railing"),
    *("railroad", "river", "road", "rock", "roof", "rug", "salad", "sand", "sea", "shelf"),
    *("sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw"),
    *("structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable"),
    *("wall-brick", "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile"),
    *("wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood"),
)
NEVER = (  # no pixel of the authors' has one of these
    *("street sign", "hat", "shoe", "eye glasses", "plate", "mirror", "window", "desk", "door"),
    *("blender", "hair brush"),
)
LISTS = {"train": "train", "val": "test"}  # split → name in imageLists/


class _CocoStuff(SegmentationData):
    classes = {name: voc_color(label) for label, name in enumerate(NAMES, 1)}
    never = frozenset(NEVER)
    official_ids = True

    def __init__(self, root: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = require_root(root)

    def odd_values(self, found: Summary) -> Finding | None:
        """Suspect values that are one too high: they hit classes that never occur."""
        hit = [NAMES[i] for i in np.flatnonzero(found.images) if NAMES[i] in NEVER]
        if not hit:
            return None
        return Finding(
            f"{found.title}: {hit[0]} (value {NAMES.index(hit[0])}) occurs, a class that no mask "
            "of COCO-Stuff's authors holds. If the values are 1…182, not 0…181, all names are "
            "off by one",
            proved=False,
        )

    def split(self, name: str) -> FileSplit:
        """Return the files of a split, which all must be there."""
        files = self.listing(name)
        check_files_exist(files.pairs)
        return files

    @abstractmethod
    def listing(self, name: str) -> FileSplit:
        """Return the files of a split, whether there are labels or not."""

    def _files(self, images: Path, masks: Path, ids: list[str]) -> FileSplit:
        pairs = [Pair(id, images / f"{id}.jpg", masks / f"{id}.png") for id in ids]
        return FileSplit(pairs, len(self.classes))


class CocoStuff10k(_CocoStuff):
    """COCO-Stuff 10k, version 1.1: 182 label ids, of which 171 occur.

    Under `root`: images/<id>.jpg, annotations/<id>.png, whose values are class indices (255
    unlabeled), and imageLists/, as `prepare coco_stuff_10k` writes it. Splits train (9,000 images)
    and val (1,000, the authors' test.txt).

    Args:
        root: the folder with images/, annotations/ and imageLists/.
    """

    parts = {"val": {"test"}}

    def listing(self, name: str) -> FileSplit:
        """List the images of imageLists/train.txt, or for val of imageLists/test.txt."""
        path = self.root / "imageLists" / f"{LISTS.get(name, name)}.txt"
        if not path.is_file():
            raise DataError(
                f"{path} does not exist. Run: python -m deeplab_lit.prepare coco_stuff_10k "
                "--root DIR"
            )
        return self._files(self.root / "images", self.root / "annotations", listed_ids(path))


class CocoStuff164k(_CocoStuff):
    """COCO-Stuff on COCO 2017: 182 label ids, of which 171 occur.

    Under `root`: images/<split>2017/<id>.jpg and annotations/<split>2017/<id>.png, the authors'
    stuffthingmaps, whose values are class indices (255 unlabeled). Splits train (118,287 images)
    and val (5,000).

    Args:
        root: the folder with images/ and annotations/.
    """

    def listing(self, name: str) -> FileSplit:
        """List the images of images/`name`2017, in the order of their names."""
        images = self.root / f"images/{name}2017"
        ids = [path.stem for path in matching(images, "*.jpg")]
        if not ids:
            raise DataError(
                f"{images}: no images there. Run: python -m deeplab_lit.prepare coco_stuff_164k "
                "--root DIR"
            )
        return self._files(images, self.root / f"annotations/{name}2017", ids)
