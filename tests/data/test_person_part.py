import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import DataError, PersonPart


def test_classes_are_background_and_six_parts_from_head_to_foot():
    assert list(PersonPart.classes) == [
        *("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs")
    ]
    assert list(PersonPart.classes.values())[:3] == [(0, 0, 0), (128, 0, 0), (0, 128, 0)]


def test_splits_are_the_lists_and_masks_hold_class_indices(voc2010_root):
    data = PersonPart(str(voc2010_root))
    assert data.split("train").ids == ["2007_1", "2007_2"]
    split = data.split("val")
    image, mask = split.read(0)
    with Image.open(voc2010_root / "SegmentationPersonPart/2007_4.png") as file:
        np.testing.assert_array_equal(mask, np.asarray(file))
    assert image.shape == (24, 32, 3)
    assert set(mask[:2].flatten()) == {255, 6}


def test_a_value_that_is_no_part_is_refused(voc2010_root, write_mask):
    write_mask(voc2010_root / "SegmentationPersonPart/2007_4.png", np.full((24, 32), 7))
    with pytest.raises(DataError, match=r"mask value 7, .* 7 classes"):
        PersonPart(str(voc2010_root)).split("val").read(0)


def test_a_missing_root_is_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        PersonPart()
    with pytest.raises(DataError, match="no PASCAL VOC 2010 there"):
        PersonPart(str(tmp_path))
