"""Cityscapes, fine annotations (Cordts et al., 2016)."""

import numpy as np

from deeplab_lit.data.datamodule import SegmentationData, existing, given
from deeplab_lit.data.dataset import INVALID, FileSplit, Pair
from deeplab_lit.data.image import VOID, DataError

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def _label_map() -> np.ndarray:
    label_map = np.full(256, INVALID, np.uint8)
    label_map[:34] = VOID
    label_map[255] = VOID  # label −1, the license plate, in 8 bits
    label_map[list(LABEL_IDS)] = range(len(LABEL_IDS))
    return label_map


class Cityscapes(SegmentationData):
    """Cityscapes: 19 classes, 2975 training and 500 validation images of 2048×1024 pixels.

    The official layout under `root`: leftImg8bit/<split>/<city>/<id>_leftImg8bit.png and
    gtFine/<split>/<city>/<id>_gtFine_labelIds.png, whose 34 label ids are mapped to the 19 training
    ids as they are read. Splits train and val; test has no labels.

    Args:
        root: the folder with leftImg8bit/ and gtFine/.
    """

    classes = {
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    }

    def __init__(self, root: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.root = given(root)

    def split(self, name: str) -> FileSplit:
        """The frames of leftImg8bit/`name`, in the order of their names."""
        if name == "test":
            raise DataError(
                "Cityscapes test has no labels: run predict --images on its images instead"
            )
        images = sorted((self.root / "leftImg8bit" / name).glob("*/*_leftImg8bit.png"))
        if not images:
            raise DataError(
                f"{self.root / 'leftImg8bit' / name}/<city>/*_leftImg8bit.png: no such images. "
                "Unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into one folder "
                "and give it as --data.root."
            )
        pairs = []
        for image in images:
            id = image.name.removesuffix("_leftImg8bit.png")
            mask = self.root / "gtFine" / name / image.parent.name / f"{id}_gtFine_labelIds.png"
            pairs.append(Pair(id, image, mask))
        return FileSplit(existing(pairs), len(self.classes), _label_map())
