import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import DataError, PascalContext, PersonPart
from deeplab_lit.data.devkit import find_devkit


@pytest.mark.parametrize("up", [0, 1, 2])
def test_the_kit_is_found_from_the_folders_above(voc2010_root, up):
    assert find_devkit([voc2010_root, *voc2010_root.parents][up], 2010) == voc2010_root


def test_another_year_is_not_taken_for_it(voc2010_root):
    with pytest.raises(DataError, match=r"--data\.root .*no PASCAL VOC 2012 there.*VOC2012"):
        find_devkit(voc2010_root.parent, 2012)


def test_a_split_names_what_is_missing(voc2010_root):
    (voc2010_root / "SegmentationPersonPart/2007_2.png").unlink()
    data = PersonPart(str(voc2010_root))
    with pytest.raises(DataError, match=r"1 of 4 files are missing: .*PersonPart/2007_2\.png"):
        data.split("train")
    with pytest.raises(DataError, match=r"test\.txt does not exist; splits there: train, val"):
        data.split("test")


def test_context_classes_are_background_and_59_in_the_order_of_the_alphabet():
    background, *names = PascalContext.classes
    assert background == "background"
    assert len(names) == 59
    assert names == sorted(names)
    assert {"aeroplane", "bedclothes", "ceiling", "sky", "track", "tvmonitor", "wood"} < set(names)
    assert len(set(PascalContext.classes.values())) == 60
    assert PascalContext.classes["aeroplane"] == (128, 0, 0)


def test_splits_of_contexts_are_the_lists_and_masks_hold_class_indices(voc2010_root):
    data = PascalContext(str(voc2010_root.parent))
    assert data.split("train").ids == ["2007_1", "2007_2"]
    split = data.split("val")
    assert split.ids == ["2007_4"]
    image, mask = split.read(0)
    with Image.open(voc2010_root / "SegmentationClassContext/2007_4.png") as file:
        np.testing.assert_array_equal(mask, np.asarray(file))
    assert image.shape == (24, 32, 3)
    assert set(mask[:2].flatten()) == {255, 59}


def test_a_value_that_is_no_class_of_context_is_refused(voc2010_root, write_mask):
    write_mask(voc2010_root / "SegmentationClassContext/2007_4.png", np.full((24, 32), 60))
    with pytest.raises(DataError, match=r"mask value 60, .* 60 classes"):
        PascalContext(str(voc2010_root)).split("val").read(0)


def test_a_missing_root_of_contexts_is_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        PascalContext()
    with pytest.raises(DataError, match="no PASCAL VOC 2010 there"):
        PascalContext(str(tmp_path))


def test_part_classes_are_background_and_six_parts_from_head_to_foot():
    assert list(PersonPart.classes) == [
        *("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs")
    ]
    assert list(PersonPart.classes.values())[:3] == [(0, 0, 0), (128, 0, 0), (0, 128, 0)]


def test_splits_of_parts_are_the_lists_and_masks_hold_class_indices(voc2010_root):
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


def test_a_missing_root_of_parts_is_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        PersonPart()
    with pytest.raises(DataError, match="no PASCAL VOC 2010 there"):
        PersonPart(str(tmp_path))
