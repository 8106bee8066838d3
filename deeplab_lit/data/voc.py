"""PASCAL VOC 2012 (Everingham et al.), with SBD's extra annotations (Hariharan et al., 2011)."""

from pathlib import Path

from deeplab_lit.data.datamodule import SegmentationData, existing, given
from deeplab_lit.data.dataset import FileSplit, Pair
from deeplab_lit.data.image import DataError
from deeplab_lit.data.palette import voc_colour

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

    classes = {name: voc_colour(i) for i, name in enumerate(CLASSES)}

    def __init__(self, root: str | None = None, sbd_root: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.root = _find_root(given(root))
        self.sbd_root = Path(sbd_root) if sbd_root else None

    def split(self, name: str) -> FileSplit:
        """The images listed in ImageSets/Segmentation/`name`.txt; see the class for the others."""
        if name in AUGMENTED:
            return FileSplit(existing(self._augmented(name)), len(self.classes))
        if name == "test":
            raise DataError("VOC test has no labels: run predict --images on its images instead")
        masks = self.root / "SegmentationClass"
        pairs = [self._pair(id, masks / f"{id}.png") for id in self._ids(name)]
        return FileSplit(existing(pairs), len(self.classes))

    def _augmented(self, name: str) -> list[Pair]:
        held_out = set(self._ids("val")) if name == "train_aug" else set()
        masks = self.root / "SegmentationClassAug"
        if masks.is_dir():
            listed = self.root / "ImageSets/Segmentation" / f"{name}.txt"
            ids = (
                self._ids(name) if listed.is_file() else sorted(p.stem for p in masks.glob("*.png"))
            )
            return [self._pair(id, masks / f"{id}.png") for id in ids if id not in held_out]
        if self.sbd_root is None:
            raise DataError(
                f"VOC {name} needs {masks}, or --data.sbd_root with SBD's dataset folder "
                "(img/, cls/)"
            )
        voc = self._ids(AUGMENTED[name])
        pairs = [self._pair(id, self.root / "SegmentationClass" / f"{id}.png") for id in voc]
        left_out = held_out | set(voc)
        return pairs + [
            Pair(mask.stem, self.sbd_root / "img" / f"{mask.stem}.jpg", mask)
            for mask in sorted((self.sbd_root / "cls").glob("*.mat"))
            if mask.stem not in left_out
        ]

    def _pair(self, id: str, mask: Path) -> Pair:
        return Pair(id, self.root / "JPEGImages" / f"{id}.jpg", mask)

    def _ids(self, name: str) -> list[str]:
        path = self.root / "ImageSets/Segmentation" / f"{name}.txt"
        if not path.is_file():
            there = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
            raise DataError(f"{path} does not exist; splits there: {there}")
        ids = path.read_text("utf-8", errors="replace").split("\n")
        ids = [id.strip() for id in ids if id.strip()]
        odd = next((id for id in ids if len(id.split()) > 1 or "/" in id), None)
        if odd or len(set(ids)) < len(ids):
            raise DataError(
                f"{path}: expected an image name a line, each once"
                + (f", found {odd!r}" if odd else ", found some twice")
            )
        return ids


def _find_root(root: Path) -> Path:
    for folder in (root, root / "VOC2012", root / "VOCdevkit/VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise DataError(
        f"--data.root {root}: no PASCAL VOC 2012 there (no JPEGImages/, VOC2012/JPEGImages/ or "
        "VOCdevkit/VOC2012/JPEGImages/). Unpack the official VOCtrainval archive, and give its "
        "VOCdevkit folder."
    )
