import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deeplab_lit.data.class_maps import ClassMaps
from deeplab_lit.data.image import DataError
from deeplab_lit.data.map_rule import MapRule

H, W = 12, 17


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def scores(random):
    """Two classes, keys 3 and 7."""
    return ClassMaps(np.array([4, 8]), random.random((2, H, W), np.float32) ** 3, complete=False)


@pytest.fixture
def probabilities(random):
    maps = random.dirichlet(np.ones(3), (H, W)).transpose(2, 0, 1).astype(np.float32)
    return ClassMaps(np.array([0, 2, 5]), maps, complete=True)


def published(keys, padded):
    """The label rule of the published code, as it is written there."""
    return np.pad(keys + 1, (1, 0), mode="constant")[np.argmax(padded, axis=0)]


@pytest.mark.parametrize("threshold", [0.15, 0.21, 0.3])
def test_a_constant_background_gives_the_labels_of_the_published_rule(scores, threshold):
    padded = np.pad(scores.maps, ((1, 0), (0, 0), (0, 0)), constant_values=threshold)
    labels = MapRule.parse(f"threshold:{threshold}").labels(scores, (H, W))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, published(np.array([3, 7]), padded))
    assert set(np.unique(labels)) == {0, 4, 8}


@pytest.mark.parametrize("power", [1, 2])
def test_the_power_rule_is_one_minus_the_highest_score_to_that_power(scores, power):
    background = np.power(1 - np.max(scores.maps, axis=0, keepdims=True), power)
    padded = np.concatenate((background, scores.maps), axis=0)
    labels = MapRule.parse(f"power:{power}").labels(scores, (H, W))
    np.testing.assert_array_equal(labels, published(np.array([3, 7]), padded))


def test_hand_worked_pixels():
    maps = ClassMaps(np.array([1]), np.array([[[0.1, 0.2, 0.6, 0.9]]], np.float32), complete=False)
    size = (1, 4)
    assert MapRule.parse("threshold:0.15").labels(maps, size).tolist() == [[0, 1, 1, 1]]
    assert MapRule.parse("power:1").labels(maps, size).tolist() == [[0, 0, 1, 1]]
    assert MapRule.parse("power:2").labels(maps, size).tolist() == [[0, 0, 1, 1]]
    # shares of the best: .9, .8, .6, .9
    assert MapRule.parse("power:1,certain:0.8").labels(maps, size).tolist() == [[0, 0, 255, 1]]
    assert MapRule.parse("certain:.85,power:1").labels(maps, size).tolist() == [[0, 255, 255, 1]]


def test_scores_become_probabilities_by_their_sum(scores):
    shares = MapRule.parse("power:1").probabilities(scores, 21, (H, W))
    assert shares.shape == (21, H, W)
    assert shares.dtype == np.float32
    background = 1 - scores.maps.max(0)
    total = background + scores.maps.sum(0)
    np.testing.assert_allclose(shares[0], background / total, rtol=1e-5)
    np.testing.assert_allclose(shares[8], scores.maps[1] / total, rtol=1e-5)
    assert shares[[1, 2, 3, 5, 20]].max() == 0


def test_pixels_without_any_score_are_background():
    maps = ClassMaps(np.array([3]), np.zeros((1, 2, 2), np.float32), complete=False)
    rule = MapRule.parse("threshold:0,certain:1")
    assert rule.probabilities(maps, 5, (2, 2))[:, 0, 0].tolist() == [1, 0, 0, 0, 0]
    assert rule.labels(maps, (2, 2)).max() == 0


@pytest.mark.parametrize("rule", ["threshold:0.15", "power:2"])
def test_an_image_without_classes_is_background_at_its_own_size(rule):
    nothing = ClassMaps(np.zeros(0, np.int64), np.zeros((0, 1, 1), np.float32), complete=False)
    assert MapRule.parse(rule).labels(nothing, (H, W)).tolist() == [[0] * W] * H
    assert MapRule.parse(rule).probabilities(nothing, 3, (H, W))[0].min() == 1


def test_probabilities_need_no_rule_and_may_be_uncertain(probabilities):
    best = np.array([0, 2, 5])[probabilities.maps.argmax(0)]
    np.testing.assert_array_equal(MapRule().labels(probabilities, (H, W)), best)
    sure = MapRule.parse("certain:0.6").labels(probabilities, (H, W))
    expected = np.where(probabilities.maps.max(0) < 0.6, 255, best)
    np.testing.assert_array_equal(sure, expected)
    assert {255, 2} <= set(np.unique(sure))
    whole = MapRule().probabilities(probabilities, 6, (H, W))
    np.testing.assert_allclose(whole[[0, 2, 5]], probabilities.maps, atol=1e-6)


@pytest.mark.parametrize("size", [(12, 17), (45, 66), (48, 68), (5, 7)])
def test_maps_of_another_size_are_brought_to_the_images_bilinearly(scores, size):
    expected = F.interpolate(torch.from_numpy(scores.maps)[None], size, mode="bilinear")[0].numpy()
    padded = np.pad(expected, ((1, 0), (0, 0), (0, 0)), constant_values=0.15)
    shares = MapRule.parse("threshold:0.15").probabilities(scores, 9, size)
    np.testing.assert_allclose(shares[[0, 4, 8]], padded / padded.sum(0), atol=1e-5)


def test_maps_of_another_shape_than_the_image_are_refused(scores):
    with pytest.raises(DataError, match=r"17×12 \(width × height\) for an image of 48×68"):
        MapRule.parse("power:1").labels(scores, (68, 48))
    square = ClassMaps(np.array([1]), np.ones((1, 14, 14), np.float32), complete=False)
    assert MapRule.parse("power:1").labels(square, (68, 48)).min() == 1


@pytest.mark.parametrize(
    "text",
    [
        "0.15",
        "threshold",
        "threshold:",
        "threshold:x",
        "threshold:1.5",
        "threshold:-1",
        "power:0",
        "power:nan",
        "threshold:0.1,power:1",
        "power:1,power:2",
        "certain:95",
        "power:1,sure:0.5",
        "power:1,",
    ],
)
def test_a_rule_that_is_none_says_what_is_expected(text):
    with pytest.raises(DataError, match=r"threshold:0\.15; power:A .* certain:0\.95"):
        MapRule.parse(text)


@pytest.mark.parametrize("text", ["threshold:0.15", "power:2", "certain:0.9", "power:1,certain:1"])
def test_a_rule_is_written_as_it_is_typed(text):
    assert str(MapRule.parse(text)) == text


def test_a_rule_that_does_not_go_with_the_maps_is_refused(scores, probabilities):
    with pytest.raises(DataError, match="have no background and need a rule"):
        MapRule().labels(scores, (H, W))
    with pytest.raises(DataError, match="probabilities of all classes: leave it out"):
        MapRule.parse("threshold:0.15").labels(probabilities, (H, W))
