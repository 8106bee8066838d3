import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from deeplab_lit.data import DataError
from deeplab_lit.data.id_lists import indices_of, read_ids

VOC_LINES = (  # of UniMatch's and ST++'s lists, without a final newline
    "JPEGImages/2007_000733.jpg SegmentationClass/2007_000733.png\n"
    "JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png"
)
CITY_LINE = (
    "leftImg8bit/train/jena/jena_000078_000019_leftImg8bit.png "
    "gtFine/train/jena/jena_000078_000019_gtFine_labelTrainIds.png"
)


@pytest.fixture
def write(tmp_path):
    """(text) → the file with it."""

    def write(text):
        path = tmp_path / "92/labeled.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "a\r\nb\r\n",
        "\n# the first two\na\n\n  b  \n",
        b"\xef\xbb\xbfa\nb\n",
    ],
)
def test_line_ends_comments_and_empty_lines_do_not_matter(write, text):
    assert read_ids(write(text)).names == ["a", "b"]


def test_an_id_with_spaces_is_one_name_and_the_mask_behind_a_path_is_not_looked_at(write):
    assert read_ids(write("street 1 left\n")).names == ["street 1 left"]
    assert read_ids(write("a.jpg\tb.png\n")).names == ["a.jpg"]


def test_a_list_is_known_by_its_file_folder_and_sha256(write):
    path = write("a\n")
    listed = read_ids(path)
    assert (listed.path, listed.title) == (path, "92/labeled.txt")
    assert listed.sha256 == hashlib.sha256(b"a\n").hexdigest()


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_an_empty_list_is_refused(write, text):
    with pytest.raises(DataError, match="names no image"):
        read_ids(write(text))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_refused_with_the_command_that_converts_it(write, protocol):
    path = write(pickle.dumps(np.arange(3), protocol))
    with pytest.raises(DataError, match=r"prepare id_list --pickle .*labeled\.txt --of"):
        read_ids(path)


def test_what_is_no_list_is_refused(write, tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_ids(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_ids(tmp_path / "none.txt")
    with pytest.raises(DataError, match="not UTF-8"):
        read_ids(write(b"\xff\xfea\x00"))
    with pytest.raises(DataError, match=r"2 names are there twice or more \(a, b\)"):
        read_ids(write("a\nb\na\nb\nc\na\n"))


def indices(path, ids, files=()):
    return indices_of(read_ids(path), ids, [Path(file) for file in files])


def test_lists_of_voc_are_found_by_the_names_of_images(write):
    ids = ["2007_000032", "2007_000063", "2007_000733"]
    assert indices(write(VOC_LINES), ids, [f"voc/{id}.jpg" for id in ids]) == ([2, 0], [])


def test_lists_of_cityscapes_are_found_by_the_names_of_frames(write):
    ids = ["aachen_000000_000019", "jena_000078_000019"]
    files = [f"leftImg8bit/train/x/{id}_leftImg8bit.png" for id in ids]
    assert indices(write(CITY_LINE), ids, files) == ([1], [])
    assert indices(write("jena_000078_000019\n"), ids, files) == ([1], [])


@pytest.mark.parametrize("name", ["00007", "00007.png", "images/00007.png", "images\\00007.png"])
def test_frames_are_found_with_and_without_folder_and_suffix(write, name):
    ids = ["00001", "00007"]
    assert indices(write(name), ids, [f"images/{id}.png" for id in ids]) == ([1], [])


def test_drawn_images_are_found_by_their_numbers(write):
    assert indices(write("2\n0\n7\n"), ["0", "1", "2"]) == ([2, 0], ["7"])


def test_a_dot_in_an_id_is_no_suffix(write):
    assert indices(write("v1.2\nv1.3\n"), ["v1.2", "v1.3", "v1"]) == ([0, 1], [])


def test_folders_tell_images_of_one_name_apart(write):
    ids = ["day/1", "night/1"]
    files = ["images/train/day/1.png", "images/train/night/1.png"]
    assert indices(write("images/train/night/1.png"), ids, files) == ([1], [])
    assert indices(write("dusk/1.png"), ids, files) == ([], ["dusk/1.png"])
    with pytest.raises(DataError, match=r"1\.png may be any of day/1, night/1"):
        indices(write("1.png"), ids, files)


def test_ids_that_are_files_are_found_without_their_suffix(write):
    ids = ["a.jpg", "sub/b.jpg"]
    files = [f"unlabeled/{id}" for id in ids]
    assert indices(write("b\na\n"), ids, files) == ([1, 0], [])


def test_two_names_of_one_image_are_refused(write):
    with pytest.raises(DataError, match=r"a and JPEGImages/a\.jpg are one image, a"):
        indices(write("a\nJPEGImages/a.jpg\n"), ["a"], ["a.jpg"])
