"""Names and colours for the classes of a network that knows only how many it has."""

from pathlib import Path

from deeplab_lit.data.cityscapes import Cityscapes
from deeplab_lit.data.coco_stuff import CocoStuff164k
from deeplab_lit.data.image import DataError
from deeplab_lit.data.palette import Colour, voc_colour
from deeplab_lit.data.text import lines_of
from deeplab_lit.data.voc import VOC
from deeplab_lit.data.words import counted

KNOWN = {
    "voc": VOC.classes,
    "cityscapes": Cityscapes.classes,
    "coco_stuff": CocoStuff164k.classes,
}


def class_names(num_classes: int, given: str | None = None) -> dict[str, Colour]:
    """Name → RGB colour of each class, in the order of the class indices.

    Args:
        num_classes: C.
        given: "voc", "cityscapes", "coco_stuff", or a text file with a name a line. null: VOC's
            names for 21 classes, Cityscapes' for 19, COCO-Stuff's for 182, else class_0, class_1
            and so on.

    Raises:
        DataError: the file cannot be read; or the number of names is another.
    """
    if given is None:
        named = next((c for c in KNOWN.values() if len(c) == num_classes), None)
        names = [f"class_{i}" for i in range(num_classes)]
    else:
        named = KNOWN.get(given.lower())
        names = [] if named else _names_in(Path(given))
    classes = named or {name: voc_colour(i) for i, name in enumerate(names)}
    if len(classes) != num_classes:
        raise DataError(
            f"--data_classes {given} names {counted(len(classes), 'class')}, but the network "
            f"has {num_classes}: give a file with {num_classes} different names, one a line"
        )
    return dict(classes)


def _names_in(path: Path) -> list[str]:
    if not path.exists():
        raise DataError(f"--data_classes {path}: not {', '.join(KNOWN)}, and no such file")
    return lines_of(path)
