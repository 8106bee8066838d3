"""Heads as they were initialized are not for scoring; trained ones are never taken for such."""

import pytest
import source_networks as theirs
import torch
from layouts import caffe_layers, conv2d_list, kazuto1011_state, torchvision_state

from deeplab_lit.network.weights.formats import translate
from deeplab_lit.network.weights.formats.isht7 import from_adaptsegnet
from deeplab_lit.network.weights.load import build
from deeplab_lit.network.weights.read import WeightsError


def fresh_head(head, bias):
    """As the ports and Caffe initialize it; `bias`: the largest of the biases."""
    return [(torch.randn_like(w) * 0.01, torch.linspace(-bias, bias, len(b))) for w, b in head]


def blobs(layers):
    return {f"{name}/{i}": blob for name, blobs in layers.items() for i, blob in enumerate(blobs)}


def resnet_state(format, net):
    if format == "caffe":
        return blobs(caffe_layers(net))
    if format == "kazuto1011":
        return kazuto1011_state(net)
    prefix = "Scale." if format == "isht7" else ""
    return torchvision_state(net, prefix=prefix) | conv2d_list(f"{prefix}layer5", net["head"])


@pytest.mark.parametrize("format", ["caffe", "kazuto1011", "isht7", "adaptsegnet"])
@pytest.mark.parametrize("bias", [0, (2048 * 9) ** -0.5])
def test_a_file_whose_whole_head_is_random_is_one_to_train_from(resnet101, format, bias):
    """isht7's MS_DeepLab_resnet_pretrained_COCO_init.pth; Caffe begins with biases of 0."""
    net = resnet101 | {"head": fresh_head(resnet101["head"], bias)}
    source = translate({"state_dict": resnet_state(format, net)})
    assert source.format == format
    assert source.num_classes is None
    assert not [key for key in source.state if key.startswith("head.")]
    assert sum("never trained" in reason for reason in source.skipped.values()) == 8
    with pytest.raises(WeightsError, match=r"f\.pth .* never trained: .*--model.weights f\.pth"):
        build(source, "f.pth")


def test_vggs_fc6_and_fc7_stay_where_its_fc8_is_random():
    net = theirs.random_vgg16()
    for name in [name for name in net if name.startswith("fc8")]:
        net[name] = torch.randn(21, 1024, 1, 1) * 0.01, torch.zeros(21)
    source = translate({"state_dict": blobs(net)})
    assert source.num_classes is None
    assert sum("never trained" in reason for reason in source.skipped.values()) == 8
    assert sum(key.startswith("head.") for key in source.state) == 16


def test_one_step_of_training_makes_it_a_trained_head(resnet101):
    """The biases' rate is 20 times 2.5e-4; softmax over 21 classes gives them up to 20/21."""
    head = fresh_head(resnet101["head"], 0)
    logits = torch.zeros(1, 21, requires_grad=True)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0])).backward()
    step = -20 * 2.5e-4 * 4 * logits.grad[0]  # four losses
    net = resnet101 | {"head": [(weight, bias + step) for weight, bias in head]}
    assert translate({"state_dict": resnet_state("kazuto1011", net)}).num_classes == 21


def test_a_random_head_is_kept_for_whoever_says_how_many_branches(resnet101):
    net = resnet101 | {"head": fresh_head(resnet101["head"], 0)}
    state = {"state_dict": resnet_state("isht7", net)}
    source = translate(state, branches=4)
    assert (source.num_classes, len(source.copied)) == (21, 528)


def test_branches_that_are_left_out_are_reported_as_such(resnet101):
    source = from_adaptsegnet(resnet_state("adaptsegnet", resnet101), 2)
    assert len(source.copied) == 524
    assert source.skipped["layer5.conv2d_list.2.bias"] == ("not of the first 2 branches, as asked")
