"""Cityscapes, fine and coarse annotations (Cordts et al., 2016)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_lit.data.check import Summary
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.decode import UNREADABLE, exact
from deeplab_lit.data.file_split import FileSplit, ImageFiles
from deeplab_lit.data.image import DataError
from deeplab_lit.data.meaning import Finding
from deeplab_lit.data.paths import Pair, check_files_exist, matching, refuse_one_name, require_root
from deeplab_lit.data.split import INVALID
from deeplab_lit.types import VOID

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CATEGORIES = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
AVERAGE_SIZE = {  # of an instance in the training set, in pixels; from the evaluation script
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
NO_INSTANCE = -1
COARSE = "_coarse"  # ends the name of a split with coarse labels, of images that have fine ones
FOLDERS = {"trainval": ["train", "val"]}
SPLITS = ("train", "val", "trainval", "train_extra", "train_coarse", "val_coarse")
LABEL_FILE = "_labelIds.png"
TRAIN_IDS = (LABEL_FILE, "_labelTrainIds.png")
KINDS = (
    "A labelIds file holds label ids (0…33), a labelTrainIds file train ids (0…18, and 255 for "
    "void): put the official files of gtFine_trainvaltest.zip or gtCoarse.zip there."
)
NOT_IN_16 = ("terrain", "truck", "train")  # SYNTHIA has none of them
NOT_IN_13 = ("wall", "fence", "pole")  # thin or rare; nor those above


def label_map_of(largest: int) -> np.ndarray:
    """Return the table (256,) uint8 from label ids to the 19 training ids; others are void.

    Args:
        largest: label id in the files. 255, which is label −1 in 8 bits, is void too; what else is
            above it is INVALID.
    """
    label_map = np.full(256, INVALID, np.uint8)
    label_map[: largest + 1] = VOID
    label_map[255] = VOID
    label_map[list(LABEL_IDS)] = range(len(LABEL_IDS))
    return label_map


def are_train_ids(values: np.ndarray) -> bool:
    """Return whether values (256,) that occur are train ids, and not label ids.

    Train ids are 0…18 and 255; of label ids most pixels have one above 18.
    """
    there = set(np.flatnonzero(values).tolist())
    return there <= {*range(19), VOID} and VOID in there and bool(there & set(range(7)))


class Cityscapes(SegmentationData):
    """Cityscapes: 19 classes, 2975 training and 500 validation images of 2048×1024 pixels.

    The official layout under `root`: leftImg8bit/<split>/<city>/<id>_leftImg8bit.png and
    gtFine/<split>/<city>/<id>_gtFine_labelIds.png, whose 34 label ids are mapped to the 19 training
    ids as they are read; where a split has …_labelTrainIds.png instead, these are read. Splits
    train, val, trainval, and train_extra with the coarse labels of gtCoarse/; train_coarse,
    val_coarse and trainval_coarse take gtCoarse/ for the same images too. The test split has images
    alone, and so may the others be used as --unlabeled_data, or with `mask_dir`.

    Args:
        root: the folder with leftImg8bit/, and gtFine/ or gtCoarse/.
        data: of SegmentationData.
    """

    parts = {
        "trainval": {"train", "val"},
        "train_coarse": {"train"},
        "val_coarse": {"val"},
        "trainval_coarse": {"train", "val"},
    }
    official_ids = True
    classes = {
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    }
    subsets = {
        "16": tuple(name for name in classes if name not in NOT_IN_16),
        "13": tuple(name for name in classes if name not in NOT_IN_16 + NOT_IN_13),
    }

    def __init__(self, root: str | None = None, **data: Any) -> None:
        super().__init__(**data)
        self.root = require_root(root)

    def split(self, name: str) -> FileSplit:
        """List the frames of a split with their labels, in the order of their names."""
        if name == "test":
            raise DataError(
                "Cityscapes test has no labels: run predict --images on its images instead"
            )
        pairs, notes = self._pairs(name), []
        label_map: np.ndarray | None = label_map_of(33)
        if not any(pair.mask.is_file() for pair in pairs):
            others = [
                p._replace(mask=p.mask.with_name(p.mask.name.replace(*TRAIN_IDS))) for p in pairs
            ]
            if any(pair.mask.is_file() for pair in others):
                pairs, label_map = others, None
                notes = ["there is no …{}, so …{} is read".format(*TRAIN_IDS)]
        check_files_exist(pairs)
        return FileSplit(pairs, len(self.classes), label_map, notes=notes, remedy=KINDS)

    def images_of(self, name: str) -> ImageFiles:
        """List the frames of a split, whether there are labels or not."""
        pairs = self._pairs(name)
        refuse_one_name(pairs)
        images = [pair.image for pair in pairs]
        return ImageFiles([pair.id for pair in pairs], images, label_map_of(33))

    def _pairs(self, name: str) -> list[Pair]:
        """Return the images of a split with their files of label ids, which need not exist."""
        is_coarse = name == "train_extra" or name.endswith(COARSE)
        labels = "gtCoarse" if is_coarse else "gtFine"
        pairs = []
        for folder in FOLDERS.get(name.removesuffix(COARSE), [name.removesuffix(COARSE)]):
            images = matching(self.root / "leftImg8bit" / folder, "*/*_leftImg8bit.png")
            if not images:
                archives = (
                    "leftImg8bit_trainextra.zip and gtCoarse.zip"
                    if folder == "train_extra"
                    else "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip"
                )
                raise DataError(
                    f"{self.root / 'leftImg8bit' / folder}/<city>/*_leftImg8bit.png: no such "
                    f"images. Unpack {archives} into one folder and give it as --data.root. "
                    f"Splits: {', '.join(SPLITS)}"
                )
            for image in images:
                id = image.name.removesuffix("_leftImg8bit.png")
                city = self.root / labels / folder / image.parent.name
                pairs.append(Pair(id, image, city / f"{id}_{labels}{LABEL_FILE}"))
        return pairs

    def odd_values(self, found: Summary) -> Finding | None:
        """Find train ids in files that are called labelIds."""
        if found.label_values.get(0) == 0 or not are_train_ids(found.values):
            return None
        return Finding(
            f"{found.title}: the {found.number:,} …{LABEL_FILE} looked at hold nothing but 0…18 "
            "and 255: these are train ids, where label ids are expected (road is 7, not 0; car is "
            f"26, not 13). {KINDS}",
            proved=True,
        )

    def instance_map(self, split: str, id: str) -> Path:
        """Return the file of an image's instances, gtFine/…/<id>_gtFine_instanceIds.png."""
        return self._instance_maps(split)[id]

    def instances(self, split: str) -> tuple[dict, dict, Callable[[str], np.ndarray] | None]:
        """Return what the benchmark's further scores need.

        Returns:
            Categories as name → indices of their classes; index of each class with instances →
            its average instance's pixels; and what reads the instances of an image by its id,
            (H,W) int32, None if an image has no instance map.
        """
        index = {name: i for i, name in enumerate(self.classes)}
        categories = {k: tuple(index[name] for name in names) for k, names in CATEGORIES.items()}
        sizes = {index[name]: size for name, size in AVERAGE_SIZE.items()}
        maps = self._instance_maps(split)
        whole = all(path.is_file() for path in maps.values())
        return categories, sizes, partial(_read_instances, maps) if whole else None

    def _instance_maps(self, split: str) -> dict[str, Path]:
        """Return id → file, beside the masks: folders of cities may have any name."""
        files = self.labeled(split)
        assert isinstance(files, FileSplit)
        return {p.id: p.mask.with_name(f"{p.id}_gtFine_instanceIds.png") for p in files.pairs}


def _read_instances(maps: dict[str, Path], id: str) -> np.ndarray:
    """Return the instances of an image, (H,W) int32: 1000 × class index + number, or NO_INSTANCE.

    Regions of several objects that could not be told apart, and the instances of classes that are
    not scored, are NO_INSTANCE.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with exact(maps[id].read_bytes()) as picture:
            raw = np.asarray(picture).astype(np.int32)
    except UNREADABLE as error:
        raise DataError(f"{maps[id]}: cannot be read as an instance map ({error})") from error
    index = label_map_of(33)[raw.clip(0) // 1000].astype(np.int32)  # of what is below 1000: void
    scored = (raw >= 1000) & (index < len(LABEL_IDS))
    return np.where(scored, 1000 * index + raw % 1000, NO_INSTANCE)
