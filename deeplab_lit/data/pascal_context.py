"""PASCAL-Context (Mottaghi et al., 2014): the whole scene, on VOC 2010's images."""

from deeplab_lit.data.classes import voc_color
from deeplab_lit.data.devkit import DevkitData

CLASSES = (
    *("background", "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat"),
    *("book", "bottle", "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth"),
    *("computer", "cow", "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food"),
    *("grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person"),
    *("plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign"),
    *("sky", "snow", "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall"),
    *("water", "window", "wood"),
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
    classes = {name: voc_color(i) for i, name in enumerate(CLASSES)}
    palette = dict(enumerate(classes.values()))
