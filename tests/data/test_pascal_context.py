import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import DataError, PascalContext


def test_classes_are_background_and_59_in_the_order_of_the_alphabet():
    background, *names = PascalContext.classes
    assert background == "background"
    assert len(names) == 59
    assert names == sorted(names)
    assert {"aeroplane", "bedclothes", "ceiling", "sky", "track", "tvmonitor", "wood"} < set(names)
    assert len(set(PascalContext.classes.values())) == 60
    assert PascalContext.classes["aeroplane"] == (128, 0, 0)


def test_splits_are_the_lists_and_masks_hold_class_indices(voc2010_root):
    data = PascalContext(str(voc2010_root.parent))
    assert data.split("train").ids == ["2007_1", "2007_2"]
    split = data.split("val")
    assert split.ids == ["2007_4"]
    image, mask = split.read(0)
    with Image.open(voc2010_root / "SegmentationClassContext/2007_4.png") as file:
        np.testing.assert_array_equal(mask, np.asarray(file))
    assert image.shape == (24, 32, 3)
    assert set(mask[:2].flatten()) == {255, 59}


def test_a_value_that_is_no_class_is_refused(voc2010_root, write_mask):
    write_mask(voc2010_root / "SegmentationClassContext/2007_4.png", np.full((24, 32), 60))
    with pytest.raises(DataError, match=r"mask value 60, .* 60 classes"):
        PascalContext(str(voc2010_root)).split("val").read(0)


def test_a_missing_root_is_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        PascalContext()
    with pytest.raises(DataError, match="no PASCAL VOC 2010 there"):
        PascalContext(str(tmp_path))
