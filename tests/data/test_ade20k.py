import numpy as np
import pytest

from deeplab_lit.data import ADE20K, DataError

# lines of the challenge's objectInfo150.txt, which counts from 1
INFO = {
    1: "wall",
    2: "building",
    3: "sky",
    8: "bed",
    9: "windowpane",
    13: "person",
    45: "chest of drawers",
    60: "stairway",
    67: "flower",
    75: "computer",
    90: "television",
    101: "poster",
    127: "animal",
    131: "screen",
    139: "ashcan",
    150: "flag",
}


def test_classes_are_the_challenges_150_in_their_order():
    names = list(ADE20K.classes)
    assert len(names) == 150
    assert {number: names[number - 1] for number in INFO} == INFO
    assert ADE20K.classes["wall"] == (120, 120, 120)
    assert ADE20K.classes["sky"] == (6, 230, 230)
    assert ADE20K.classes["flag"] == (92, 0, 255)
    assert all(0 <= value <= 255 for color in ADE20K.classes.values() for value in color)


@pytest.fixture
def root(tmp_path, write_image, write_mask):
    values = np.resize([*range(151), 255], (24, 32))
    for folder, ids in (
        ("training", ["ADE_train_2", "ADE_train_1"]),
        ("validation", ["ADE_val_1"]),
    ):
        for id in ids:
            write_image(tmp_path / f"images/{folder}/{id}.jpg")
            write_mask(tmp_path / f"annotations/{folder}/{id}.png", values)
    return tmp_path


def test_splits_are_the_folders_and_other_objects_are_void(root):
    data = ADE20K(str(root))
    assert data.split("train").ids == ["ADE_train_1", "ADE_train_2"]
    split = data.split("val")
    assert (split.ids, split.num_classes) == (["ADE_val_1"], 150)
    raw = np.resize([*range(151), 255], (24, 32))
    expected = [[value - 1 if 1 <= value <= 150 else 255 for value in row] for row in raw.tolist()]
    np.testing.assert_array_equal(split.read(0)[1], expected)


def test_what_is_wrong_is_said(root, write_mask):
    with pytest.raises(DataError, match=r"trian: no images there.*prepare ade20k"):
        ADE20K(str(root)).split("trian")
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        ADE20K()
    write_mask(root / "annotations/validation/ADE_val_1.png", np.full((24, 32), 151))
    with pytest.raises(DataError, match="mask value 151"):
        ADE20K(str(root)).split("val").read(0)
