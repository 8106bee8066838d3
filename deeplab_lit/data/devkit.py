"""PASCAL's development kit: images, masks and lists of one year's VOC folder, as data sets.

With VOC 2010's images come PASCAL-Context (Mottaghi et al., 2014), the whole scene, and
PASCAL-Person-Part (Chen et al., 2014), the parts of people. VOC 2012 is in voc.py.
"""

from pathlib import Path
from typing import Any, ClassVar

from deeplab_lit.data.classes import voc_color
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import Pair, check_files_exist, listed_ids, require_root

CONTEXT_CLASSES = (
    *("background", "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat"),
    *("book", "bottle", "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth"),
    *("computer", "cow", "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food"),
    *("grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person"),
    *("plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign"),
    *("sky", "snow", "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall"),
    *("water", "window", "wood"),
)
PART_CLASSES = (
    "background",
    "head",
    "torso",
    "upper arms",
    "lower arms",
    "upper legs",
    "lower legs",
)


class DevkitData(SegmentationData):
    """A data set in a devkit: masks of class indices (255 void), and lists of images by split.

    A subclass says where its masks and lists are.

    Args:
        root: the folder VOC<year>, VOCdevkit, or the one that holds VOCdevkit.
        data: of SegmentationData.
    """

    year: ClassVar[int]
    masks: ClassVar[str]  # folder beside JPEGImages
    lists: ClassVar[str]  # folder below ImageSets

    def __init__(self, root: str | None = None, **data: Any) -> None:
        super().__init__(**data)
        self.root = find_devkit(require_root(root), self.year)

    @property
    def id_space(self) -> str:
        """Return PASCAL: an id is the same photo in each of its sets and years."""
        return "PASCAL"

    def split(self, name: str) -> FileSplit:
        """Return the images that ImageSets/<lists>/`name`.txt names, one id a line.

        Raises:
            DataError: files are missing, or two images have one name.
        """
        files = self.listing(name)
        check_files_exist(files.pairs)
        return files

    def listing(self, name: str) -> FileSplit:
        """Return the files of a split, whether they exist or not."""
        return FileSplit(self.pairs(self.masks, self.listed(name)), len(self.classes))

    def listed(self, name: str) -> list[str]:
        """Read the ids that the list of a split names.

        Raises:
            DataError: no such list, or one that holds something else.
        """
        return listed_ids(self.root / "ImageSets" / self.lists / f"{name}.txt")

    def pairs(self, masks: str, ids: list[str]) -> list[Pair]:
        """Return JPEGImages/<id>.jpg with `masks`/<id>.png, whether they exist or not."""
        images = self.root / "JPEGImages"
        return [Pair(id, images / f"{id}.jpg", self.root / masks / f"{id}.png") for id in ids]


PREPARED = {2010: "pascal_context (or person_part)", 2012: "voc"}  # commands, by year


def find_devkit(root: Path, year: int) -> Path:
    """Return the folder VOC<year>, given itself, VOCdevkit, or the folder that holds VOCdevkit.

    Raises:
        DataError: it is not there.
    """
    name = f"VOC{year}"
    for folder in (root, root / name, root / "VOCdevkit" / name):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise DataError(
        f"--data.root {root}: no PASCAL VOC {year} there (no JPEGImages/, {name}/JPEGImages/ or "
        f"VOCdevkit/{name}/JPEGImages/). Name the folder that `python -m deeplab_lit.prepare "
        f"{PREPARED[year]} --root DIR` has filled, or the VOCdevkit folder of the official archive."
    )


class PascalContext(DevkitData):
    """PASCAL-Context: the 59 most frequent classes and background, in the order of the alphabet.

    In VOC 2010's devkit: JPEGImages/<id>.jpg, SegmentationClassContext/<id>.png, whose values are
    class indices (0 background, 255 void), and ImageSets/SegmentationContext/<split>.txt, one id a
    line. Splits train (4,998 images) and val (5,105).

    Args:
        root: the folder VOC2010, VOCdevkit, or the one that holds VOCdevkit.
    """

    year, masks, lists = 2010, "SegmentationClassContext", "SegmentationContext"
    parts = {"trainval": {"train", "val"}}
    classes = {name: voc_color(i) for i, name in enumerate(CONTEXT_CLASSES)}
    palette = dict(enumerate(classes.values()))


class PersonPart(DevkitData):
    """PASCAL-Person-Part: six parts and background, on the images that show people.

    In VOC 2010's devkit: JPEGImages/<id>.jpg, SegmentationPersonPart/<id>.png, whose values are
    class indices (0 background, 255 void), and ImageSets/SegmentationPersonPart/<split>.txt, one id
    a line. Splits train (1,716 images) and val (1,817).

    Args:
        root: the folder VOC2010, VOCdevkit, or the one that holds VOCdevkit.
    """

    year, masks, lists = 2010, "SegmentationPersonPart", "SegmentationPersonPart"
    parts = {"trainval": {"train", "val"}}
    classes = {name: voc_color(i) for i, name in enumerate(PART_CLASSES)}
    palette = dict(enumerate(classes.values()))
