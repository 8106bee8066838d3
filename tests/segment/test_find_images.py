from pathlib import Path

import pytest
from PIL import Image

from deeplab_lit.data.image import DataError, DataWarning
from deeplab_lit.segment.find_images import find_images, listed


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg", "deep/a.png", "deep/er/c.tif", "note.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix == ".txt" else Image.new("RGB", (2, 2)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "in"


pytestmark = pytest.mark.filterwarnings("ignore:.*passed over.*note.txt")


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


def test_hidden_files_are_no_images_and_links_to_folders_are_followed(tree, tmp_path):
    for name in ("._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"")
    (tree / "deep").rename(tmp_path / "elsewhere")
    (tree / "deep").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/circle").symlink_to(tree)
    for given in ("in", "in/**/*.*"):
        found = find_images([given], leave_out=Path("out"))
        assert [str(name) for name in found][:3] == ["a", "b", "deep/a"]
    assert len(find_images(["in"], leave_out=Path("out"))) == 4


def test_images_of_one_name_keep_their_suffix(tree):
    Image.new("RGB", (2, 2)).save(tree / "a.jpg")
    found = find_images(["in"], leave_out=Path("out"))
    assert [str(name) for name in found] == ["a.jpg", "a.png", "b", "deep/a", "deep/er/c"]


@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_name_is_not_the_current_folder(tree, given):
    with pytest.raises(DataError, match="--images got an empty name"):
        find_images([given], leave_out=Path("out"))


def test_files_that_are_no_images_are_counted(tree):
    (tree / "deep/b.heic").touch()
    with pytest.warns(
        DataWarning, match=r"in: 2 files are passed over .*: deep/b\.heic, note\.txt"
    ):
        find_images(["in"], leave_out=Path("out"))


def test_names_may_begin_with_a_tilde(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree.parent))
    assert len(find_images(["~/in/*.jpg", "~/in/deep"], leave_out=Path("out"))) == 3


def test_two_links_to_a_folder_are_both_followed_and_circles_end(tmp_path):
    (tmp_path / "real").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "real/x.png")
    images = tmp_path / "images"
    images.mkdir()
    for name in ("rgb", "ir"):
        (images / name).symlink_to(tmp_path / "real")
    (images / "again").symlink_to(images)
    found = find_images([str(images)], tmp_path / "out")
    assert sorted(map(str, found)) == ["ir/x", "rgb/x"]


@pytest.fixture
def frames():
    names = [*"abcd", "city/aachen_000000_000019_leftImg8bit"]
    return {Path(name): Path(f"/data/{name}.png") for name in names}


@pytest.mark.parametrize(
    ("ids", "all_but", "kept"),
    [
        ("b\na", None, "ab"),
        ("JPEGImages/c.jpg SegmentationClass/c.png\n", None, "c"),
        (None, "a\nb\nelsewhere\nd", ["c", "city/aachen_000000_000019_leftImg8bit"]),
        ("a\nb\nc", "b", "ac"),
        ("aachen_000000_000019", None, ["city/aachen_000000_000019_leftImg8bit"]),
    ],
)
def test_lists_choose_images_and_leave_images_out(frames, tmp_path, capsys, ids, all_but, kept):
    lists = {}
    for name, lines in (("ids", ids), ("all_but", all_but)):
        if lines:
            (tmp_path / name).write_text(lines)
            lists[name] = str(tmp_path / name)
    assert [str(name) for name in listed(frames, **lists)] == list(kept)
    said = capsys.readouterr().out
    assert f"The lists leave {len(kept)} of 5 images" in said
    assert ("1 name there is of no image here (elsewhere)" in said) == ("elsewhere" in str(all_but))


@pytest.mark.parametrize(
    ("ids", "all_but", "words"),
    [
        (
            "a\nx\ny",
            None,
            r"--ids .*: 2 names of 3 have no image \(x, y\); --images gives 5",
        ),
        ("a", "b\nc", "--all_but .* names none of 1 image"),
        ("a", "a", "names all images: nothing is left"),
        ("a\na", None, "--ids: .*a"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused(frames, tmp_path, ids, all_but, words):
    (tmp_path / "ids").write_text(ids)
    (tmp_path / "all_but").write_text(all_but or "")
    with pytest.raises(DataError, match=words):
        listed(frames, str(tmp_path / "ids"), str(tmp_path / "all_but") if all_but else None)
