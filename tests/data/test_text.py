"""Lists that people write in editors of all kinds."""

import pytest

from deeplab_lit.data import DataError, Folder
from deeplab_lit.data.names import class_names
from deeplab_lit.data.text import lines_of


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
