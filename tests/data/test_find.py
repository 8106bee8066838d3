from pathlib import Path

import pytest
from PIL import Image

from deeplab_lit.data.find import find_images
from deeplab_lit.data.image import DataError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg", "deep/a.png", "deep/er/c.tif", "note.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix == ".txt" else Image.new("RGB", (2, 2)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["in"], ["a", "b", "deep/a", "deep/er/c"]),
        (["in/a.png"], ["a"]),
        (["in/*.png"], ["a"]),
        (["in/**/*.png"], ["a", "deep/a"]),
        (["in/b.jpg", "in/deep"], ["b", "a", "er/c"]),
        (["in", "in/deep/../a.png"], ["a", "b", "deep/a", "deep/er/c"]),
        (["in/[ab].*"], ["a", "b"]),
    ],
)
def test_files_folders_and_globs_are_found_in_order(tree, inputs, names):
    found = find_images(inputs, leave_out=Path("out"))
    assert [str(name) for name in found] == names
    assert all(path.is_file() for path in found.values())


def test_results_below_the_folder_are_left_out(tree):
    found = find_images(["in"], leave_out=Path("in/deep"))
    assert [str(name) for name in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (["in/*.bmp"], "in/*.bmp: no image there"),
        (["nowhere"], "nowhere: no image there"),
        (["in/note.txt.d"], "no image there"),
        (["in/a.png", "in/deep"], "would both be called a"),
    ],
)
def test_what_cannot_be_done_is_said(tree, inputs, words):
    with pytest.raises(DataError, match=r"no image|both be called") as error:
        find_images(inputs, leave_out=Path("out"))
    assert words in str(error.value)
