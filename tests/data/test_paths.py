from pathlib import Path

import pytest

from deeplab_lit.data import VOC, DataError, Folder, class_names
from deeplab_lit.data.devkit import CONTEXT_CLASSES
from deeplab_lit.data.image import MissingFiles
from deeplab_lit.data.paths import Pair, check_files_exist, lines_of, listed_ids, require_root
from deeplab_lit.prepare.voc_2010 import class_table


@pytest.mark.parametrize("root", [None, ""])
def test_a_folder_that_is_not_given_is_asked_for(root):
    assert require_root("here") == Path("here")
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        require_root(root)


def test_the_first_files_that_are_missing_are_named_and_all_are_kept(tmp_path):
    pairs = [Pair(id, tmp_path / f"{id}.jpg", tmp_path / f"{id}.png") for id in "abc"]
    for pair in pairs:
        pair.image.touch()
        pair.mask.touch()
    check_files_exist(pairs)
    gone = [pairs[0].mask, *pairs[1][1:], pairs[2].image]
    for path in gone:
        path.unlink()
    with pytest.raises(MissingFiles, match=r"^4 of 6 files .*a\.png, .*b\.png and 1 more") as error:
        check_files_exist(pairs)
    assert error.value.files == gone


LABELS = list(enumerate(CONTEXT_CLASSES))[1:]


def test_lines_come_without_spaces_blank_lines_and_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeff sky\r\n\r\nvélo\t\n".encode())
    assert lines_of(tmp_path / "a.txt") == ["sky", "vélo"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_refused_with_the_line(folder_root, encoding):
    path = folder_root / "classes.txt"
    path.write_bytes("sky\nroad\nvélo\n".encode(encoding))
    line = 3 if encoding == "latin-1" else 1
    words = rf"classes\.txt is not UTF-8 \(line {line} .*save it as UTF-8"
    with pytest.raises(DataError, match=words):
        class_names(3, str(path))
    with pytest.raises(DataError, match=words):
        Folder(str(folder_root))


def test_a_folder_is_not_taken_for_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        class_names(3, str(tmp_path))


def test_lists_with_a_byte_order_mark_are_read(voc_root, tmp_path):
    path = voc_root / "ImageSets/Segmentation/val.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert VOC(str(voc_root)).split("val").ids == ["2007_4", "2008_5"]
    (tmp_path / "labels.txt").write_text("\ufeff" + "".join(f"{i}: {n}\n" for i, n in LABELS))
    assert class_table(tmp_path / "labels.txt")[1] == 1


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
