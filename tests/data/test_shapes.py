import numpy as np
import pytest

from deeplab_lit.data import DataError, Shapes
from deeplab_lit.data.draw import draw_sample

NAMES = ["background", "disc", "square", "triangle", "cross", "wire", "eye"]


def test_classes():
    assert list(Shapes.classes) == NAMES
    assert len(set(Shapes.classes.values())) == 7


def test_splits_share_no_image():
    data = Shapes(train_size=1_000_000, val_size=1_000_000)
    ids = [data.split(name).ids for name in ("train", "val", "test")]
    ends = [int(id) for one in ids for id in (one[0], one[-1])]
    assert ends == sorted(set(ends))
    assert [len(one) for one in ids] == [1_000_000] * 3


@pytest.mark.parametrize(("name", "first"), [("train", 0), ("val", 10**6), ("test", 2 * 10**6)])
def test_split_reads_the_samples_of_its_indices(name, first):
    split = Shapes(train_size=5, val_size=5, draw_seed=3).split(name)
    assert split.ids == [str(first + i) for i in range(5)]
    for read, drawn in zip(split.read(4), draw_sample(3, first + 4), strict=True):
        np.testing.assert_array_equal(read, drawn)


def test_bad_splits_are_refused():
    with pytest.raises(DataError, match="no split 'trainval'; it has train, val, test"):
        Shapes().split("trainval")
    for kwargs, name in (({"train_size": 0}, "train"), ({"val_size": 1_000_001}, "test")):
        with pytest.raises(DataError, match=f"Shapes {name}: 1 to 1,000,000 images"):
            Shapes(**kwargs).split(name)


@pytest.mark.parametrize("radius", [4, 51])
def test_discs_of_no_possible_size_are_refused(radius):
    with pytest.raises(DataError, match=r"--data\.max_disc must be in 5…50"):
        Shapes(max_disc=radius)


def test_the_size_of_discs_reaches_the_images():
    split = Shapes(max_disc=25).split("val")
    for read, drawn in zip(split.read(3), draw_sample(0, 1_000_003, 25), strict=True):
        np.testing.assert_array_equal(read, drawn)
