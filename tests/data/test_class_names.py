import pytest

from deeplab_lit.data import VOC, Cityscapes, CocoStuff10k, DataError
from deeplab_lit.data.class_names import class_names


def test_the_number_of_classes_tells_voc_cityscapes_and_coco_stuff():
    assert class_names(21) == VOC.classes
    assert class_names(19) == Cityscapes.classes
    assert class_names(182) == CocoStuff10k.classes
    assert class_names(21, "VOC") == VOC.classes
    assert class_names(19, "cityscapes") == Cityscapes.classes


@pytest.mark.parametrize("number", [1, 60, 183, 256])
def test_other_numbers_get_numbered_names_and_colors_of_their_own(number):
    classes = class_names(number)
    assert list(classes)[-1] == f"class_{number - 1}"
    assert len(set(classes.values())) == len(classes) == number


def test_names_may_come_from_a_file(tmp_path):
    (tmp_path / "classes.txt").write_text("sky\nroad\n\n")
    assert list(class_names(2, str(tmp_path / "classes.txt"))) == ["sky", "road"]


@pytest.mark.parametrize("given", ["voc", "classes.txt"])
def test_another_number_of_names_is_refused(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\nroad\nsky\n")
    with pytest.raises(DataError, match=rf"--data_classes {given} .* the network has 3"):
        class_names(3, given)


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"no such file"):
        class_names(3, "nowhere.txt")
