"""Names and colors for the classes of a network that knows only how many it has."""

from pathlib import Path

from deeplab_lit.data.cityscapes import Cityscapes
from deeplab_lit.data.classes import read_class_list, voc_color
from deeplab_lit.data.coco_stuff import CocoStuff164k
from deeplab_lit.data.image import DataError
from deeplab_lit.data.voc import VOC
from deeplab_lit.text import plural
from deeplab_lit.types import Classes

KNOWN = {
    "voc": VOC.classes,
    "cityscapes": Cityscapes.classes,
    "coco_stuff": CocoStuff164k.classes,
}


def class_names(num_classes: int, given: str | None = None) -> Classes:
    """Name → RGB color of each class, in the order of the class indices.

    Args:
        num_classes: C.
        given: "voc", "cityscapes", "coco_stuff", or a list as Folder's classes.txt. null: VOC's
            names for 21 classes, Cityscapes' for 19, COCO-Stuff's for 182, else class_0, class_1
            and so on.

    Raises:
        DataError: the file cannot be read; or the number of names is another.
    """
    if given is None:
        classes = next((c for c in KNOWN.values() if len(c) == num_classes), None) or {
            f"class_{i}": voc_color(i) for i in range(num_classes)
        }
    else:
        classes = KNOWN.get(given.lower()) or _classes_in(given, num_classes)
    if len(classes) != num_classes:
        raise DataError(
            f"--data_classes {given} names {plural(len(classes), 'class')}, but the network "
            f"has {num_classes}: give a file with {num_classes} different names, one a line"
        )
    return dict(classes)


def _classes_in(given: str, num_classes: int) -> Classes:
    path = Path(given).expanduser()
    if not path.exists():
        raise DataError(f"--data_classes {given}: not {', '.join(KNOWN)}, and no such file")
    try:
        lines = [line for line in read_class_list(path) if not line.is_void]
    except DataError as error:
        raise DataError(
            f"--data_classes {given} is no list of classes, and the network has {num_classes}: "
            f"{error}"
        ) from error
    return {line.name: line.color or voc_color(line.value or 0) for line in lines}
