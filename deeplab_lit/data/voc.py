"""PASCAL VOC 2012 (Everingham et al.), with SBD's extra annotations (Hariharan et al., 2011)."""

from pathlib import Path

from deeplab_lit.data.datamodule import SegmentationData
from deeplab_lit.data.dataset import FileSplit, Pair
from deeplab_lit.data.devkit import devkit_pairs, devkit_split, find_devkit, listed_ids
from deeplab_lit.data.image import DataError
from deeplab_lit.data.palette import voc_color
from deeplab_lit.data.paths import existing, given, matching

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
AUGMENTED = {"train_aug": "train", "trainval_aug": "trainval"}


class VOC(SegmentationData):
    """PASCAL VOC 2012: 20 classes and background, void at object borders.

    The official devkit's layout under `root`: JPEGImages, SegmentationClass, ImageSets.
    Splits train (1,464 images), val (1,449) and trainval; test has no labels. train_aug (10,582)
    and trainval_aug (12,031) add SBD's images: with SegmentationClassAug/ beside SegmentationClass
    (listed in ImageSets/Segmentation/train_aug.txt, or every file that VOC val does not name), or
    with SBD's own release in `sbd_root`, where VOC's masks are used for VOC's images.

    Args:
        root: the folder VOC2012, VOCdevkit, or the one that holds VOCdevkit.
        sbd_root: SBD's `dataset` folder (img/, cls/*.mat); or null.
    """

    classes = {name: voc_color(i) for i, name in enumerate(CLASSES)}
    palette = dict(enumerate(classes.values()))
    parts = {
        "trainval": {"train", "val"},
        "train_aug": {"train", "sbd"},
        "trainval_aug": {"train", "val", "sbd"},
    }

    def __init__(self, root: str | None = None, sbd_root: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.root = find_devkit(given(root), 2012)
        self.sbd_root = Path(sbd_root).expanduser() if sbd_root else None

    def split(self, name: str) -> FileSplit:
        """The images listed in ImageSets/Segmentation/`name`.txt; see the class for the others."""
        if name in AUGMENTED:
            return FileSplit(existing(self._augmented(name)), len(self.classes))
        if name == "test":
            raise DataError("VOC test has no labels: run predict --images on its images instead")
        return devkit_split(self.root, "Segmentation", "SegmentationClass", name, len(self.classes))

    def _augmented(self, name: str) -> list[Pair]:
        held_out = set(self._ids("val")) if name == "train_aug" else set()
        masks = self.root / "SegmentationClassAug"
        if masks.is_dir():
            listed = self.root / "ImageSets/Segmentation" / f"{name}.txt"
            ids = (
                self._ids(name) if listed.is_file() else [p.stem for p in matching(masks, "*.png")]
            )
            return devkit_pairs(self.root, masks.name, [id for id in ids if id not in held_out])
        if self.sbd_root is None:
            raise DataError(
                f"VOC {name} needs {masks}, or --data.sbd_root with SBD's dataset folder "
                "(img/, cls/)"
            )
        voc = self._ids(AUGMENTED[name])
        pairs = devkit_pairs(self.root, "SegmentationClass", voc)
        left_out = held_out | set(voc)
        return pairs + [
            Pair(mask.stem, self.sbd_root / "img" / f"{mask.stem}.jpg", mask)
            for mask in matching(self.sbd_root / "cls", "*.mat")
            if mask.stem not in left_out
        ]

    def _ids(self, name: str) -> list[str]:
        return listed_ids(self.root / "ImageSets/Segmentation" / f"{name}.txt")
