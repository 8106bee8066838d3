import numpy as np
import pytest

from deeplab_lit.data.file_split import FileSplit, ImageFiles
from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import Pair
from deeplab_lit.data.split import INVALID


@pytest.fixture
def pair(tmp_path, write_image):
    path = tmp_path / "one.png"
    write_image(path)
    return Pair("one", path, tmp_path / "one_mask.png")


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_file_split_reads_image_and_mask(pair, write_image, write_mask):
    pixels, values = write_image(pair.image, 3), write_mask(pair.mask, np.full((24, 32), 2))
    split = FileSplit([pair], 3)
    assert split.ids == ["one"]
    assert same(split.read(0), (pixels, values))


def test_mask_of_another_size_is_refused_with_both_sizes(pair, write_mask):
    write_mask(pair.mask, np.zeros((32, 24)))
    with pytest.raises(DataError, match=r"one_mask\.png: mask of 24×32 .* image of 32×24"):
        FileSplit([pair], 3).read(0)


@pytest.mark.parametrize(("bad", "classes"), [(3, 3), (200, 3), (254, 3), (254, 254), (21, 21)])
def test_bad_value_is_named(pair, write_mask, bad, classes):
    values = np.zeros((24, 32))
    values[3, 4], values[0, 0] = bad, 255
    write_mask(pair.mask, values)
    with pytest.raises(DataError, match=rf"one_mask\.png: mask value {bad}, .* {classes} classes"):
        FileSplit([pair], classes).read(0)


@pytest.mark.parametrize("classes", [1, 3, 254])
def test_all_classes_and_void_are_allowed(pair, write_mask, classes):
    values = np.resize([*range(classes), 255], (24, 32))
    write_mask(pair.mask, values)
    np.testing.assert_array_equal(FileSplit([pair], classes).read(0)[1], values)


def test_mask_of_void_only_is_allowed(pair, write_mask):
    write_mask(pair.mask, np.full((24, 32), 255))
    assert (FileSplit([pair], 2).read(0)[1] == 255).all()


def test_label_map_is_applied_and_bad_raw_values_are_named(pair, write_mask):
    label_map = np.full(256, 254, np.uint8)
    label_map[[7, 9, 30, 255]] = 0, 1, 255, 255
    values = np.resize([7, 9, 30, 255], (24, 32))
    write_mask(pair.mask, values)
    mask = FileSplit([pair], 2, label_map).read(0)[1]
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.resize([0, 1, 255, 255], (24, 32)))
    values[5, 5], values[6, 6] = 0, 1  # fine as classes, but not in the files of this data set
    write_mask(pair.mask, values)
    with pytest.raises(DataError, match=r"mask value 0, 1,"):
        FileSplit([pair], 2, label_map).read(0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [(None, {0: 0, 1: 1, 2: 2}), ([255, 0, 1, 2], {0: 1, 1: 2, 2: 3}), ([2, 2, 0], {0: 2, 2: 0})],
    ids=["the indices", "void first", "two values and a class without"],
)
def test_a_split_knows_which_value_of_its_files_a_class_has(values, expected):
    label_map = None if values is None else np.full(256, INVALID, np.uint8)
    if values is not None:
        label_map[: len(values)] = values
    assert FileSplit([], 3, label_map).label_values(3) == expected


@pytest.mark.parametrize("size", [(23, 32), (26, 35), (12, 16), (48, 64)])
def test_a_mask_is_brought_to_its_images_size_where_that_is_asked_for(pair, write_mask, size):
    """Each pixel takes the value of the mask's pixel that its center lies in."""
    values = write_mask(pair.mask, np.random.default_rng(0).integers(0, 3, size))
    rows = [int((i + 0.5) * size[0] / 24) for i in range(24)]
    columns = [int((i + 0.5) * size[1] / 32) for i in range(32)]
    split = FileSplit([pair], 3, fit_masks=True)
    np.testing.assert_array_equal(split.read(0)[1], values[np.ix_(rows, columns)])
    assert split.content(0).size == size[::-1]
    assert "1 of the 1 pair looked at" in split.remarks([0])[0]
    assert split.remarks([]) == []


def test_a_data_set_may_read_its_masks_and_say_what_they_should_be(pair, write_mask):
    write_mask(pair.mask, np.full((24, 32), 5))
    split = FileSplit([pair], 3, read_values=lambda path: np.ones((24, 32), np.uint8))
    assert (split.read(0)[1] == 1).all()
    assert split.content(0).values[1] == 24 * 32
    with pytest.raises(DataError, match=r"mask value 5, .*Take the masks of the archive\.$"):
        FileSplit([pair], 3, remedy="Take the masks of the archive.").read(0)


def test_of_images_alone_masks_are_void_and_not_read(pair):
    split = ImageFiles(["one"], [pair.image])
    assert split.image_files() == [pair.image]
    assert (split.read(0)[1] == 255).all()
    assert split.label_values(2) == {0: 0, 1: 1}
