import numpy as np
import pytest
from crf_inputs import random_image

from deeplab_lit.crf import CRFError, DenseCRF
from deeplab_lit.pictures.crf_demo import rough_probabilities, small_multiples
from deeplab_lit.pictures.masks import comparison

CLASSES = {"sky": (10, 20, 200), "tree": (0, 150, 30)}


def halves(height=64, width=96):
    """Class 2 on the right, class 0 on the left."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 2
    return mask


@pytest.mark.parametrize("size", [(64, 96), (50, 71), (5, 3)])
def test_they_are_probabilities_at_the_masks_size(size):
    scores = rough_probabilities(halves(*size), 3)
    assert scores.shape == (3, *size)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(0), 1, rtol=1e-5)
    assert scores.min() > 0


def test_they_are_sure_inside_and_unsure_along_the_edge():
    """By hand: cells of 8 pixels, blurred over three of them, so from 1 to 0 within 12 pixels."""
    scores = rough_probabilities(halves(), 3, cell=8, certainty=0.7)
    inside, edge = scores[:, 30, 30], scores[:, 30, 47:49].mean(1)
    np.testing.assert_allclose(inside, [0.8, 0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(edge, [0.45, 0.1, 0.45], rtol=1e-5)
    np.testing.assert_allclose(scores[0, 30, 43:45].mean(), 0.1 + 0.7 * 2 / 3, rtol=1e-5)


def test_they_move_no_edge_but_round_corners_off():
    mask = np.zeros((135, 170), np.uint8)
    mask[32:96, 48:128] = 1
    found = rough_probabilities(mask, 2).argmax(0)
    np.testing.assert_array_equal(found[64], mask[64])
    np.testing.assert_array_equal(found[:, 80], mask[:, 80])
    assert found[32, 48] == 0


def test_of_what_is_not_drawn_all_classes_are_equally_likely():
    scores = rough_probabilities(np.full((20, 20), 255, np.uint8), 4)
    np.testing.assert_allclose(scores, 0.25)


def test_the_crf_takes_them():
    image = random_image((64, 96))
    scores = rough_probabilities(halves(), 3)
    assert DenseCRF(backend="torch")(image, scores).shape == scores.shape


def test_a_class_too_many_is_named():
    with pytest.raises(CRFError, match=r"0…1 and 255, this one also \[2\]"):
        rough_probabilities(halves(), 2)


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
