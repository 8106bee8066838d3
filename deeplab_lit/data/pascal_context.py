"""PASCAL-Context (Mottaghi et al., 2014): the whole scene, on VOC 2010's images."""

from deeplab_lit.data.datamodule import SegmentationData
from deeplab_lit.data.dataset import FileSplit
from deeplab_lit.data.devkit import devkit_split, find_devkit
from deeplab_lit.data.palette import voc_color
from deeplab_lit.data.paths import given

CLASSES = (
    *("background", "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat"),
    *("book", "bottle", "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth"),
    *("computer", "cow", "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food"),
    *("grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person"),
    *("plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign"),
    *("sky", "snow", "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall"),
    *("water", "window", "wood"),
)


class PascalContext(SegmentationData):
    """PASCAL-Context: the 59 most frequent classes and background, in the order of the alphabet.

    In VOC 2010's devkit: JPEGImages/<id>.jpg, SegmentationClassContext/<id>.png, whose values are
    class indices (0 background, 255 void), and ImageSets/SegmentationContext/<split>.txt, one id a
    line. Splits train (4,998 images) and val (5,105).

    Args:
        root: the folder VOC2010, VOCdevkit, or the one that holds VOCdevkit.
    """

    parts = {"trainval": {"train", "val"}}
    classes = {name: voc_color(i) for i, name in enumerate(CLASSES)}
    palette = dict(enumerate(classes.values()))

    def __init__(self, root: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.root = find_devkit(given(root), 2010)

    def split(self, name: str) -> FileSplit:
        """The images listed in ImageSets/SegmentationContext/`name`.txt."""
        masks = "SegmentationClassContext"
        return devkit_split(self.root, "SegmentationContext", masks, name, len(self.classes))
