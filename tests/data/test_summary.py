import numpy as np
import pytest

from deeplab_lit.data.dataset import Split
from deeplab_lit.data.image import DataError
from deeplab_lit.data.summary import summarize, table

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
