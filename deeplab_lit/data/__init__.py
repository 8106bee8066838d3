"""Data sets: which images and masks belong to a split, how they are read, and what they mean.

`class_names` gives classes to a network that knows only how many it has.
"""

from pathlib import Path

from deeplab_lit.data.ade20k import ADE20K
from deeplab_lit.data.cityscapes import Cityscapes
from deeplab_lit.data.classes import read_class_list, voc_color
from deeplab_lit.data.coco import Coco
from deeplab_lit.data.coco_stuff import CocoStuff10k, CocoStuff164k
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.devkit import PascalContext, PersonPart
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.folder import Folder, Images
from deeplab_lit.data.gta5 import GTA5
from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import Pair
from deeplab_lit.data.shapes import Shapes
from deeplab_lit.data.split import Split
from deeplab_lit.data.synthia import Synthia
from deeplab_lit.data.voc import VOC
from deeplab_lit.text import plural
from deeplab_lit.types import Classes

__all__ = [
    "ADE20K",
    "CLASSES_OF",
    "GTA5",
    "VOC",
    "Cityscapes",
    "Coco",
    "CocoStuff10k",
    "CocoStuff164k",
    "DataError",
    "FileSplit",
    "Folder",
    "Images",
    "Pair",
    "PascalContext",
    "PersonPart",
    "SegmentationData",
    "Shapes",
    "Split",
    "Synthia",
    "class_names",
    "listed_classes",
]

CLASSES_OF = {
    "voc": VOC.classes,
    "cityscapes": Cityscapes.classes,
    "coco": Coco.classes,
    "coco_stuff": CocoStuff164k.classes,
}


def class_names(num_classes: int, given: str | None = None) -> Classes:
    """Return name → RGB color of each class, in the order of the class indices.

    Args:
        num_classes: C.
        given: "voc", "cityscapes", "coco", "coco_stuff", or a list as Folder's classes.txt. None:
            VOC's names for 21 classes, Cityscapes' for 19, COCO's for 81, COCO-Stuff's for 182,
            else class_0, class_1 and so on.

    Raises:
        DataError: the file cannot be read; or the number of names is another.
    """
    if given is None:
        classes = next((c for c in CLASSES_OF.values() if len(c) == num_classes), None) or {
            f"class_{i}": voc_color(i) for i in range(num_classes)
        }
    else:
        classes = CLASSES_OF.get(given.lower()) or _classes_in(given, num_classes)
    if len(classes) != num_classes:
        raise DataError(
            f"--data_classes {given} names {plural(len(classes), 'class')}, but the network "
            f"has {num_classes}: give a file with {num_classes} different names, one a line"
        )
    return dict(classes)


def _classes_in(given: str, num_classes: int) -> Classes:
    path = Path(given).expanduser()
    if not path.exists():
        raise DataError(f"--data_classes {given}: not {', '.join(CLASSES_OF)}, and no such file")
    try:
        return listed_classes(path)
    except DataError as error:
        raise DataError(
            f"--data_classes {given} is no list of classes, and the network has {num_classes}: "
            f"{error}"
        ) from error


def listed_classes(path: Path) -> Classes:
    """Return the classes of a list like Folder's classes.txt, in its order; void is left out.

    Raises:
        DataError: there is no such list.
    """
    lines = [line for line in read_class_list(path) if not line.is_void]
    return {line.name: line.color or voc_color(line.value or 0) for line in lines}
