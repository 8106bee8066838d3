"""Data sets: which images and masks belong to a split, how they are read, and what they mean."""

from deeplab_lit.data.ade20k import ADE20K
from deeplab_lit.data.cityscapes import Cityscapes
from deeplab_lit.data.coco_stuff import CocoStuff10k, CocoStuff164k
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.folder import Folder, Images
from deeplab_lit.data.image import DataError
from deeplab_lit.data.pascal_context import PascalContext
from deeplab_lit.data.paths import Pair
from deeplab_lit.data.person_part import PersonPart
from deeplab_lit.data.shapes import Shapes
from deeplab_lit.data.split import FileSplit, Split
from deeplab_lit.data.voc import VOC

__all__ = [
    "ADE20K",
    "VOC",
    "Cityscapes",
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
]
