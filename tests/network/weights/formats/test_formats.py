"""A file's format is recognized from the names in it, wherever they stand."""

import pytest
import torch

from deeplab_lit.network.weights.formats import FORMATS, read_source, recognize, translate
from deeplab_lit.network.weights.read import WeightsError

NAMES = {
    "caffe": ["conv1/0", "bn_conv1/0", "res2a_branch1/0"],
    "kazuto1011": ["base.layer1.conv1.conv.weight"],
    "isht7": ["Scale.conv1.weight", "Scale.layer1.0.conv1.weight"],
    "adaptsegnet": ["conv1.weight", "layer1.0.conv1.weight", "layer6.conv2d_list.0.weight"],
    "torchvision": ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"],
    "deeplab_lit": ["net.preprocess.mean", "net.backbone.conv1.weight"],
}


@pytest.mark.parametrize("format", FORMATS)
def test_names_tell_the_format(format):
    assert recognize(NAMES[format]) == format


@pytest.mark.parametrize(
    ("names", "format"),
    [
        (["conv1_1/0", "fc6_1/0"], "caffe"),
        (["layer1.conv1.conv.weight"], "kazuto1011"),
        (["module.layer1.0.conv1.weight", "module.layer5.conv2d_list.0.bias"], "adaptsegnet"),
        (["features.0.weight", "classifier.0.weight"], "torchvision"),
        (["backbone.conv1.weight"], "deeplab_lit"),
    ],
    ids=str,
)
def test_other_prefixes_and_other_networks_are_recognized_too(names, format):
    assert recognize(names) == format


def test_other_names_are_refused_with_what_was_found():
    with pytest.raises(WeightsError, match=r"'encoder\.weight'.*none of the formats caffe"):
        recognize(["encoder.weight"])


def test_adaptsegnets_vgg_is_refused_as_another_network():
    with pytest.raises(WeightsError, match="not built here"):
        recognize(["features.0.weight", "classifier.conv2d_list.0.weight"])


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3},
                                  lambda s: {"model": s, "iteration": 9}])  # fmt: skip
def test_weights_may_stand_inside_a_checkpoint(wrap):
    state = {"layer1.conv1.conv.weight": torch.randn(64, 3, 7, 7)}
    source = translate(wrap(state))
    assert source.format == "kazuto1011"
    assert source.copied == {"layer1.conv1.conv.weight": "backbone.conv1.weight"}


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {"a": 1}}], ids=str)
def test_a_file_without_weights_is_refused(content):
    with pytest.raises(WeightsError, match="no state dict"):
        translate(content)


def test_errors_name_the_file(tmp_path):
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"odd\.pth: its names"):
        read_source(tmp_path / "odd.pth")


def test_branches_can_be_chosen_only_where_they_are_in_doubt():
    with pytest.raises(WeightsError, match="--branches is for isht7 and adaptsegnet"):
        translate({"layer1.conv1.conv.weight": torch.zeros(1)}, branches=2)


@pytest.mark.parametrize(
    ("name", "hint"), [("layer1.conv1.weight", "; did you mean layer1.conv1.conv"), ("x", "")]
)
def test_a_name_to_leave_out_that_the_file_does_not_have_is_refused(name, hint):
    state = {"layer1.conv1.conv.weight": torch.randn(64, 3, 7, 7)}
    words = f"--ignore {name}: the file has no such name{hint}"
    with pytest.raises(WeightsError, match=words):
        translate(state, ignore=[name])


def test_names_of_our_own_files_can_be_left_out_too():
    state = {"net.backbone.conv1.weight": torch.zeros(1), "net.extra": torch.zeros(1)}
    source = translate({"state_dict": state}, ignore=["net.extra"])
    assert list(source.state) == ["backbone.conv1.weight"]
    assert source.skipped == {"net.extra": "ignored, as asked"}
