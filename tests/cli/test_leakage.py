"""A split that a network has seen is known by its name, and by its list."""

import pytest

import deeplab_lit
from deeplab_lit.cli.leakage import seen_splits
from deeplab_lit.data import VOC, Cityscapes, Folder, Shapes
from deeplab_lit.runs.provenance import PUBLISHED


@pytest.mark.parametrize(
    ("split", "seen"),
    [
        ("val", ["VOC:val", "VOC:trainval", "VOC:trainval_aug"]),
        ("train", ["VOC:train", "VOC:train_aug", "VOC:trainval", "VOC:trainval_aug"]),
        (
            "trainval",
            ["VOC:train", "VOC:train_aug", "VOC:val", "VOC:trainval", "VOC:trainval_aug"],
        ),
    ],
)
def test_vocs_splits_contain_each_other(voc_root, split, seen):
    """Without SBD's files: the lists of the augmented splits are not here."""
    data = VOC(root=str(voc_root), val_split=split)
    entries = ["VOC:train", "VOC:train_aug", "VOC:val", "VOC:trainval", "VOC:trainval_aug"]
    assert sorted(seen_splits(data, entries)) == sorted(seen)


def test_a_list_of_ones_own_is_compared_by_its_images(voc_root, write_list):
    lists = voc_root / "ImageSets/Segmentation"
    write_list(lists / "few.txt", ["2007_1"])
    write_list(lists / "other.txt", ["2007_1", "2007_4"])
    data = VOC(root=str(voc_root))
    assert seen_splits(data, ["VOC:few", "VOC:other"]) == ["VOC:other"]


def test_capitals_do_not_matter_and_other_data_sets_are_passed_over(voc_root):
    data = VOC(root=str(voc_root))
    assert seen_splits(data, ["voc:val", "Cityscapes:val", "unknown", "VOC:train"]) == ["voc:val"]
    assert seen_splits(data, []) == []


def test_cityscapes_and_shapes_splits_are_disjoint(city_root):
    for data in (Cityscapes(root=str(city_root)), Shapes()):
        name = type(data).__name__
        assert seen_splits(data, [f"{name}:train", f"{name}:val"]) == [f"{name}:val"]


def test_trainval_holds_val(city_root):
    data = Cityscapes(root=str(city_root))
    assert seen_splits(data, ["Cityscapes:trainval"]) == ["Cityscapes:trainval"]


def test_every_published_file_names_data_sets_as_they_call_themselves():
    foreign = {"GTA5"}
    known = {name for name in dir(deeplab_lit.data) if name[0].isupper()}
    for _, splits in PUBLISHED.values():
        assert {entry.rpartition(":")[0] for entry in splits} <= known | foreign


def test_folders_of_different_names_are_different_data_sets(folder_root):
    """The same file names stand in each split of a folder, and are other images."""
    data = Folder(root=str(folder_root))
    assert data.label("train") == "Folder/mine:train"
    assert seen_splits(data, ["Folder/mine:train", "Folder/theirs:val"]) == []
    assert seen_splits(data, ["Folder/mine:val"]) == ["Folder/mine:val"]
    assert data.trained_on() == 0
    assert Folder(root=str(folder_root), train_split="val").trained_on() == 3
