"""PASCAL-Person-Part (Chen et al., 2014): the parts of people, on VOC 2010's images."""

from deeplab_lit.data.classes import voc_color
from deeplab_lit.data.devkit import DevkitData

CLASSES = ("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs")


class PersonPart(DevkitData):
    """PASCAL-Person-Part: six parts and background, on the images that show people.

    In VOC 2010's devkit: JPEGImages/<id>.jpg, SegmentationPersonPart/<id>.png, whose values are
    class indices (0 background, 255 void), and ImageSets/SegmentationPersonPart/<split>.txt, one id
    a line. Splits train (1,716 images) and val (1,817).

    Args:
        root: the folder VOC2010, VOCdevkit, or the one that holds VOCdevkit.
    """

    year, masks, lists = 2010, "SegmentationPersonPart", "SegmentationPersonPart"
    parts = {"trainval": {"train", "val"}}
    classes = {name: voc_color(i) for i, name in enumerate(CLASSES)}
    palette = dict(enumerate(classes.values()))
