import pytest

from deeplab_lit.data import DataError
from deeplab_lit.data.devkit import devkit_pairs, devkit_split, find_devkit, listed_ids


@pytest.mark.parametrize("up", [0, 1, 2])
def test_the_kit_is_found_from_the_folders_above(voc2010_root, up):
    assert find_devkit([voc2010_root, *voc2010_root.parents][up], 2010) == voc2010_root


def test_another_year_is_not_taken_for_it(voc2010_root):
    with pytest.raises(DataError, match=r"--data\.root .*no PASCAL VOC 2012 there.*VOC2012"):
        find_devkit(voc2010_root.parent, 2012)


@pytest.mark.parametrize(
    ("text", "words"), [("a\nb 1\n", "found 'b 1'"), ("a/b\n", "found 'a/b'"), ("a\na\n", "twice")]
)
def test_a_list_of_something_else_is_refused(tmp_path, text, words):
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(DataError, match=rf"train\.txt: expected an image name a line.*{words}"):
        listed_ids(tmp_path / "train.txt")


def test_repetitions_in_a_list_are_counted(tmp_path):
    (tmp_path / "train.txt").write_text("a\nb\na\nc\nd\nb\na\n")
    with pytest.raises(DataError, match=r"each once; 2 names are there twice or more \(a, b\)"):
        listed_ids(tmp_path / "train.txt")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert listed_ids(tmp_path / "train.txt") == ["a", "b"]


def test_a_list_is_read_in_its_order(tmp_path):
    (tmp_path / "train.txt").write_text("b \n\na\r\n")
    assert listed_ids(tmp_path / "train.txt") == ["b", "a"]


def test_pairs_are_image_and_mask_of_the_same_name(tmp_path):
    (pair,) = devkit_pairs(tmp_path, "Masks", ["x"])
    assert pair == ("x", tmp_path / "JPEGImages/x.jpg", tmp_path / "Masks/x.png")


def test_a_split_names_what_is_missing(voc2010_root):
    masks = "SegmentationPersonPart"
    (voc2010_root / masks / "2007_2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 files are missing: .*PersonPart/2007_2\.png"):
        devkit_split(voc2010_root, masks, masks, "train", 7)
    with pytest.raises(DataError, match=r"test\.txt does not exist; splits there: train, val"):
        devkit_split(voc2010_root, masks, masks, "test", 7)
