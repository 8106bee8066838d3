"""Files to batches: data sets, augmentation, samplers, and the LightningDataModule around them."""

from deeplab_lit.data.cityscapes import Cityscapes
from deeplab_lit.data.datamodule import SegmentationData
from deeplab_lit.data.folder import Folder
from deeplab_lit.data.image import DataError
from deeplab_lit.data.pascal_context import PascalContext
from deeplab_lit.data.person_part import PersonPart
from deeplab_lit.data.shapes import Shapes
from deeplab_lit.data.voc import VOC

__all__ = [
    "VOC",
    "Cityscapes",
    "DataError",
    "Folder",
    "PascalContext",
    "PersonPart",
    "SegmentationData",
    "Shapes",
]
