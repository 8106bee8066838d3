import re

import numpy as np
import pytest

from deeplab_lit.data.dataset import Split
from deeplab_lit.data.image import DataError
from deeplab_lit.data.preflight import preflight


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
