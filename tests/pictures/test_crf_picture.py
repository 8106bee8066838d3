import numpy as np
import pytest

from deeplab_lit.crf import CRFError, DenseCRF
from deeplab_lit.pictures.crf_demo import rough_probabilities
from deeplab_lit.pictures.crf_picture import small_multiples
from deeplab_lit.pictures.masks import comparison

CLASSES = {"sky": (10, 20, 200), "tree": (0, 150, 30)}


@pytest.fixture
def image():
    """Bright on the left, dark on the right of column 25."""
    image = np.full((48, 60, 3), 220, np.uint8)
    image[:, 25:] = 30
    return image


@pytest.fixture
def probabilities():
    """The network's edge lies at column 32."""
    mask = np.zeros((48, 60), np.uint8)
    mask[:, 32:] = 1
    return rough_probabilities(mask, 2)


def test_each_value_has_its_picture_beside_image_and_network(image, probabilities):
    made = small_multiples(image, probabilities, CLASSES, "bi_w", (0, 4.0), width=62)
    before = probabilities.argmax(0).astype(np.uint8)
    after = [DenseCRF(bi_w=w)(image, probabilities).argmax(0).astype(np.uint8) for w in (0, 4)]
    titles = ("image", "before", "bi_w 0", "bi_w 4.0")
    expected = comparison([(image, before, *after)], CLASSES, titles, 62)
    np.testing.assert_array_equal(made, expected)
    assert (after[1][24] == (np.arange(60) >= 25)).all()  # the edge is the image's
    assert (after[0][24] == before[24]).all()


def test_a_value_that_cannot_be_is_told(image, probabilities):
    with pytest.raises(CRFError, match="bi_xy_std"):
        small_multiples(image, probabilities, CLASSES, "bi_xy_std", (-1,))
