"""PASCAL-Person-Part (Chen et al., 2014): the parts of people, on VOC 2010's images."""

from deeplab_lit.data.datamodule import SegmentationData
from deeplab_lit.data.dataset import FileSplit
from deeplab_lit.data.devkit import devkit_split, find_devkit
from deeplab_lit.data.palette import voc_color
from deeplab_lit.data.paths import given

CLASSES = ("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs")


class PersonPart(SegmentationData):
    """PASCAL-Person-Part: six parts and background, on the images that show people.

    In VOC 2010's devkit: JPEGImages/<id>.jpg, SegmentationPersonPart/<id>.png, whose values are
    class indices (0 background, 255 void), and ImageSets/SegmentationPersonPart/<split>.txt, one id
    a line. Splits train (1,716 images) and val (1,817).

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
        """The images listed in ImageSets/SegmentationPersonPart/`name`.txt."""
        folder = "SegmentationPersonPart"
        return devkit_split(self.root, folder, folder, name, len(self.classes))
