"""The compiled backend: row widths and threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from crf_inputs import native_or_skip, random_image, scores_like_a_network

from deeplab_lit.crf import CRFError, DenseCRF

SIZE = (45, 64)
IMAGE = random_image(SIZE)
PROBABILITIES = scores_like_a_network(9, SIZE)


@pytest.fixture
def built():
    native_or_skip()


@pytest.mark.parametrize("num_classes", [1, 8, 9, 33, 41, 65, 100, 150, 200, 256])
def test_every_row_width_equals_torch(built, num_classes):
    image, probabilities = random_image((12, 20)), scores_like_a_network(num_classes, (12, 20))
    np.testing.assert_allclose(
        DenseCRF(backend="native")(image, probabilities),
        DenseCRF(backend="torch")(image, probabilities),
        atol=1e-5,
    )


def test_too_many_classes(built):
    many = np.full((257, 2, 2), 1 / 257, np.float32)
    with pytest.raises(CRFError, match="at most 256 classes, got 257"):
        DenseCRF(backend="native")(random_image((2, 2)), many)


@pytest.mark.parametrize("threads", [2, 3, 5, 16])
def test_threads_change_nothing_but_rounding(built, threads):
    one = DenseCRF(backend="native", threads=1)(IMAGE, PROBABILITIES)
    many = DenseCRF(backend="native", threads=threads)
    np.testing.assert_allclose(many(IMAGE, PROBABILITIES), one, atol=2e-5)
    np.testing.assert_array_equal(many(IMAGE, PROBABILITIES), many(IMAGE, PROBABILITIES))


def test_more_threads_than_pixels(built):
    image, probabilities = random_image((1, 2)), scores_like_a_network(3, (1, 2))
    np.testing.assert_allclose(
        DenseCRF(backend="native", threads=8)(image, probabilities),
        DenseCRF(backend="torch")(image, probabilities),
        atol=1e-5,
    )


def test_images_in_python_threads(built):
    images = [random_image(SIZE, seed) for seed in range(6)]
    crf = DenseCRF(backend="native", threads=1)
    alone = [crf(image, PROBABILITIES) for image in images]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda image: crf(image, PROBABILITIES), images))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_earlier_images_left_in_memory_does_not_matter(built, threads):
    crf = DenseCRF(backend="native", threads=threads)
    first = crf(IMAGE, PROBABILITIES)
    for size, num_classes in [((30, 50), 9), ((60, 64), 21), ((45, 64), 40)]:
        crf(random_image(size, 1, "noise"), scores_like_a_network(num_classes, size, 1))
    np.testing.assert_array_equal(crf(IMAGE, PROBABILITIES), first)
