"""Lists that people write in editors of all kinds."""

import pytest

from deeplab_lit.data import VOC, DataError, Folder
from deeplab_lit.data.names import class_names
from deeplab_lit.data.pascal_context import CLASSES
from deeplab_lit.data.text import lines_of
from deeplab_lit.prepare.pascal_context import class_table

LABELS = list(enumerate(CLASSES))[1:]


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
