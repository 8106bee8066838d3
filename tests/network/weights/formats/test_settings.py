"""What a file says of itself is taken as it is where it fits, and refused where it does not."""

import pytest
import torch

from deeplab_lit.network.weights.formats.settings import (
    checked_classes,
    checked_network,
    checked_provenance,
)
from deeplab_lit.network.weights.read import WeightsError


def test_arguments_of_the_network_are_taken_and_others_are_passed_over():
    network = {"backbone": "vgg16", "atrous_rates": [6, 12], "scales": (1, 0.5), "head": "aspp"}
    network |= {"output_stride": 16, "align_corners": False}
    assert checked_network(network | {"lr": "fast", "num_classes": "many"}) == network


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output_stride", True),
        ("output_stride", 8.0),
        ("align_corners", 1),
        ("scales", [1.0, "0.5"]),
        ("scales", 1.0),
        ("atrous_rates", [True]),
        ("atrous_rates", [[6]]),
        ("head", ["aspp"]),
        ("style", torch.zeros(2)),
        ("norm", None),
        ("atrous_rates", [10**20]),
        ("output_stride", -(10**20)),
        ("scales", [float("nan")]),
        ("scales", [float("inf")]),
        ("scales", [1.0, 1e6]),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(name, value):
    with pytest.raises(WeightsError, match=rf"its hyper_parameters\.{name} is .*, expected "):
        checked_network({name: value})


def test_a_long_value_does_not_fill_the_screen():
    with pytest.raises(WeightsError) as error:
        checked_network({"backbone": torch.zeros(1000, 1000)})
    assert len(str(error.value)) < 350
    assert "\n" not in str(error.value)


def test_absurdly_many_classes_are_refused():
    classes = {f"{i}": (0, 0, 0) for i in range(10_001)}
    with pytest.raises(WeightsError, match="expected at most 10,000 classes"):
        checked_classes(classes)


def test_colors_may_be_lists_or_tuples():
    assert checked_classes({"a": [1, 2, 3], "b": (255, 0, 0)}) == {"a": (1, 2, 3), "b": (255, 0, 0)}


@pytest.mark.parametrize("color", [None, 3, "rgb", [1, 2], [1, 2, 3, 4], [1, 2, -1], [1, 2, 3.0]])
def test_what_is_no_color_is_refused_by_the_classes_name(color):
    with pytest.raises(WeightsError, match=r"'sky': .* expected the classes' names"):
        checked_classes({"road": [1, 2, 3], "sky": color})


def test_provenance_may_say_little_or_nothing():
    for provenance in (None, {}, {"init": "coco"}, {"trained_on": ["VOC:train"], "split": "x"}):
        assert checked_provenance(provenance) == provenance
