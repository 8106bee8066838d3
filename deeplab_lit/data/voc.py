"""PASCAL VOC 2012 (Everingham et al.), with SBD's extra annotations (Hariharan et al., 2011)."""

from pathlib import Path
from typing import Any

from deeplab_lit.data.classes import voc_color
from deeplab_lit.data.devkit import DevkitData
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import Pair, matching

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
AUGMENTED = {"train_aug": "train", "trainval_aug": "trainval"}
AUG, LISTS = "SegmentationClassAug", "ImageSets/Segmentation"


class VOC(DevkitData):
    """PASCAL VOC 2012: 20 classes and background, void at object borders.

    The official devkit's layout under `root`: JPEGImages, SegmentationClass, ImageSets.
    Splits train (1,464 images), val (1,449) and trainval; test has no labels. train_aug (10,582)
    and trainval_aug (12,031) add SBD's images: with SegmentationClassAug/ beside SegmentationClass
    (listed in ImageSets/Segmentation/train_aug.txt, or every file that VOC val does not name), or
    with SBD's own release in `sbd_root`, where VOC's masks are used for VOC's images. Without their
    labels, with `mask_dir` or as --unlabeled_data, ImageSets/Segmentation/train_aug.txt is enough.

    Args:
        root: the folder VOC2012, VOCdevkit, or the one that holds VOCdevkit.
        sbd_root: SBD's `dataset` folder (img/, cls/*.mat); or None.
        data: of SegmentationData.
    """

    year, masks, lists = 2012, "SegmentationClass", "Segmentation"
    classes = {name: voc_color(i) for i, name in enumerate(CLASSES)}
    palette = dict(enumerate(classes.values()))
    parts = {
        "trainval": {"train", "val"},
        "train_aug": {"train", "sbd"},
        "trainval_aug": {"train", "val", "sbd"},
    }

    def __init__(self, root: str | None = None, sbd_root: str | None = None, **data: Any) -> None:
        super().__init__(root, **data)
        self.sbd_root = Path(sbd_root).expanduser() if sbd_root else None

    def split(self, name: str) -> FileSplit:
        """Return the images of ImageSets/Segmentation/`name`.txt; for train_aug see the class."""
        masks = self.root / AUG
        if name in AUGMENTED and self.sbd_root is None and not masks.is_dir():
            raise DataError(
                f"VOC {name} needs {masks}, or --data.sbd_root with SBD's dataset folder "
                "(img/, cls/)"
            )
        if name == "test":
            raise DataError("VOC test has no labels: run predict --images on its images instead")
        return super().split(name)

    def listing(self, name: str) -> FileSplit:
        """Return the files of a split, whether they exist or not."""
        if name not in AUGMENTED:
            return super().listing(name)
        return FileSplit(self._augmented(name), len(self.classes))

    def _augmented(self, name: str) -> list[Pair]:
        held_out = set(self.listed("val")) if name == "train_aug" else set()
        masks, is_listed = self.root / AUG, (self.root / f"{LISTS}/{name}.txt").is_file()
        if masks.is_dir() or (is_listed and self.sbd_root is None):
            ids = self.listed(name) if is_listed else [p.stem for p in matching(masks, "*.png")]
            folder = AUG if masks.is_dir() else self.masks  # which has those of VOC's own images
            return self.pairs(folder, [id for id in ids if id not in held_out])
        if self.sbd_root is None:
            raise DataError(
                f"VOC {name} without labels needs the list {self.root / LISTS / name}.txt, one id "
                "a line"
            )
        voc = self.listed(AUGMENTED[name])
        left_out = held_out | set(voc)
        return self.pairs(self.masks, voc) + [
            Pair(mask.stem, self.sbd_root / "img" / f"{mask.stem}.jpg", mask)
            for mask in matching(self.sbd_root / "cls", "*.mat")
            if mask.stem not in left_out
        ]
