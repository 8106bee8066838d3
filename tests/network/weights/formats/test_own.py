"""Our own files say themselves which network they hold."""

import json

import pytest
import torch

from deeplab_lit.network.weights.formats import translate
from deeplab_lit.network.weights.formats.own import (
    checked_classes,
    checked_network,
    checked_provenance,
)
from deeplab_lit.network.weights.read import WeightsError

STATE = {"net.backbone.conv1.weight": torch.zeros(1), "net.head.bias": torch.zeros(2)}
SETTINGS = {"classes": {"sky": [1, 2, 3], "road": [4, 5, 6]}, "backbone": "resnet50", "lr": 0.1}


def test_a_checkpoint_brings_network_classes_and_provenance():
    content = {"state_dict": STATE, "hyper_parameters": SETTINGS, "provenance": {"init": "coco"}}
    source = translate(content)
    assert source.state.keys() == {"backbone.conv1.weight", "head.bias"}
    assert source.network == {"backbone": "resnet50"}
    assert source.classes == {"sky": (1, 2, 3), "road": (4, 5, 6)}
    assert source.num_classes == 2
    assert source.provenance == {"init": "coco"}


def test_what_else_stands_in_a_checkpoint_is_left_out():
    source = translate({"state_dict": STATE | {"metric.confusion": torch.zeros(3)}})
    assert "metric.confusion" not in source.state


def test_a_state_dict_alone_says_nothing_about_its_network():
    source = translate({key.removeprefix("net."): value for key, value in STATE.items()})
    assert source.state.keys() == {"backbone.conv1.weight", "head.bias"}
    assert (source.network, source.num_classes, source.provenance) == ({}, None, None)


def test_exported_weights_say_the_same_in_their_remarks():
    facts = {"classes": ["sky", "road"], "palette": [[1, 2, 3], [4, 5, 6]]}
    facts |= {"network": {"backbone": "resnet50"}, "provenance": {"init": "coco"}}
    remarks = {name: json.dumps(value) for name, value in facts.items()}
    source = translate({"state_dict": STATE, "metadata": remarks})
    assert source.classes == {"sky": (1, 2, 3), "road": (4, 5, 6)}
    assert source.network == {"backbone": "resnet50"}
    assert source.provenance == {"init": "coco"}
    for damage in ({"palette": "[]"}, {"network": "{"}):
        with pytest.raises(WeightsError, match="remarks"):
            translate({"state_dict": STATE, "metadata": remarks | damage})


def test_a_head_without_names_of_classes_is_left_out_with_the_reason():
    """As in checkpoints of other programs whose network has a backbone and a head, too."""
    state = STATE | {"net.head.branches.0.fc6.weight": torch.zeros(3)}
    source = translate({"state_dict": state, "hyper_parameters": {"lr": 0.1}})
    assert source.state.keys() == {"backbone.conv1.weight", "head.branches.0.fc6.weight"}
    assert list(source.skipped) == ["net.head.bias"]
    assert source.num_classes is None


def test_the_values_of_label_files_are_checked():
    content = {"state_dict": STATE, "hyper_parameters": SETTINGS}
    assert translate(content).label_values is None
    assert translate(content | {"label_values": {"road": 7}}).label_values == {"road": 7}
    for damage in ([1, 2], {"car": 1}, {"sky": 256}, {"sky": "1"}, {"sky": True}):
        with pytest.raises(WeightsError, match="label_values"):
            translate(content | {"label_values": damage})


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
