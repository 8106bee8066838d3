import pytest

from deeplab_lit.data import DataError, PersonPart
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
