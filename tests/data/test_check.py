import re

import numpy as np
import pytest

from deeplab_lit.data.check import preflight, summarize, table
from deeplab_lit.data.image import DataError
from deeplab_lit.data.split import Split

MASKS = [
    np.array([[0, 0, 1, 255], [0, 0, 1, 255]], np.uint8),
    np.array([[0, 0, 0, 0]], np.uint8),
    np.array([[255, 255], [2, 255]], np.uint8),
    np.array([[1, 1, 1, 0], [0, 0, 0, 0]], np.uint8),
]


class Masks(Split):
    """The masks above; the images numbered in `bad` are broken."""

    def __init__(self, masks, bad=()):
        self.masks, self.bad, self.ids = masks, bad, [str(i) for i in range(len(masks))]

    def read(self, index):
        if index in self.bad:
            raise DataError(f"{index}.png: it is broken")
        return np.zeros((*self.masks[index].shape, 3), np.uint8), self.masks[index]


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_pixels_images_sizes_and_void_are_counted(num_workers):
    found = summarize(Masks(MASKS), "X train", 4, num_workers)
    assert found.pixels.tolist() == [4 + 4 + 5, 2 + 3, 1, 0]
    assert found.images.tolist() == [3, 2, 1, 0]
    assert found.void == 2 + 3
    assert found.sizes == {(4, 2): 2, (4, 1): 1, (2, 2): 1}
    assert found.shares == pytest.approx([13 / 19, 5 / 19, 1 / 19, 0])
    assert found.void_share == pytest.approx(5 / 24)
    assert found.problems == []


def test_every_problem_is_kept_and_the_rest_is_counted():
    found = summarize(Masks(MASKS, bad=[0, 2]), "X train", 4, 2)
    assert found.problems == ["0.png: it is broken", "2.png: it is broken"]
    assert found.pixels.tolist() == [9, 3, 0, 0]
    assert summarize(Masks([]), "X train", 4, 2).problems == ["X train is empty"]


def test_nothing_but_void_has_no_shares():
    found = summarize(Masks([np.full((2, 2), 255, np.uint8)]), "X train", 2, 1)
    assert found.shares.tolist() == [0, 0]
    assert found.void_share == 1


def test_the_table_has_a_line_for_each_split_and_a_row_for_each_class():
    train = summarize(Masks(MASKS), "X train", 4, 1)
    val = summarize(Masks(MASKS[1:2]), "X val", 4, 1)
    lines = table([train, val], ["sky", "road", "car", "pole"]).splitlines()
    assert lines[0] == "X train: 4 images, 20.83% of their pixels void"
    assert lines[1] == "  3 sizes, 4×1 to 4×2; most often 4×2 (2 images)"
    assert lines[2] == "X val: 1 image, 0.00% of its pixels void"
    assert lines[3] == "  all of 4×1"
    assert lines[5].split() == ["train", "val"]
    assert [line.split() for line in lines[7:]] == [
        ["sky", "68.421%", "3", "100.000%", "1"],
        ["road", "26.316%", "2", "0.000%", "0"],
        ["car", "5.263%", "1", "0.000%", "0"],
        ["pole", "0.000%", "0", "0.000%", "0"],
    ]


class Recorded(Split):
    """Notes what is read; the images in `bad` raise."""

    def __init__(self, number, bad=(), error=DataError):
        self.ids = [str(i) for i in range(number)]
        self.bad, self.error, self.reads = bad, error, []

    def read(self, index):
        self.reads.append(index)
        if index in self.bad:
            raise self.error(f"file{index}.png: it is broken")
        return np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize("number", [1, 5, 16, 17, 31, 47, 100, 1464, 10_582])
def test_quick_reads_a_few_spread_over_the_split(number):
    split = Recorded(number)
    preflight(split, "a split")
    reads = sorted(split.reads)
    assert len(set(reads)) == len(reads)
    assert min(number, 16) <= len(reads) < 32
    gaps = np.diff([-1, *reads, number])
    assert gaps.max() <= number / 16 + 1


@pytest.mark.parametrize("number", [1, 5, 100])
@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_full_reads_every_image_once(number, num_workers):
    split = Recorded(number)
    preflight(split, "a split", "full", num_workers)
    assert sorted(split.reads) == list(range(number))


@pytest.mark.parametrize("check", ["quick", "full"])
def test_empty_split_is_refused_by_name(check):
    with pytest.raises(DataError, match="VOC train is empty"):
        preflight(Recorded(0), "VOC train", check)


@pytest.mark.parametrize("check", ["quick", "full"])
def test_one_problem_is_said_with_its_file(check):
    with pytest.raises(DataError, match=r"^file0\.png: it is broken$"):
        preflight(Recorded(40, [0]), "VOC train", check)


@pytest.mark.parametrize(("bad", "more"), [([1, 7], 0), (range(2, 12), 0), (range(1, 13), 2)])
def test_problems_are_listed_in_order_and_beyond_ten_counted(bad, more):
    with pytest.raises(DataError) as caught:
        preflight(Recorded(20, bad), "VOC train", "full")
    message = str(caught.value)
    assert f"{len(bad)} of 20 " in message
    assert "VOC train" in message
    assert re.findall(r"file(\d+)\.png", message) == [str(i) for i in bad][:10]
    assert ("more" in message) == bool(more)
    assert not more or f"{more} more" in message


def test_errors_that_are_not_about_the_data_are_not_swallowed():
    with pytest.raises(RuntimeError, match="file3"):
        preflight(Recorded(5, [3], RuntimeError), "VOC train", "full")
