import pytest
import torch

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.training.optimizer import build_optimizer, parameter_groups

NETS = {
    "resnet_batch": {"backbone": "resnet18", "norm": "batch"},
    "resnet_frozen": {"backbone": "resnet101", "norm": "frozen"},
    "vgg16_aspp": {"backbone": "vgg16"},
    "vgg16_largefov": {"backbone": "vgg16", "head": "largefov", "atrous_rates": (12,)},
    "conv1x1": {"backbone": "resnet50", "head": "conv1x1", "atrous_rates": ()},
    "aspp_concat": {"backbone": "resnet50", "norm": "frozen", "head": "aspp_concat"},
    "vgg16_concat": {"backbone": "vgg16", "head": "aspp_concat"},
}
BASE = {"lr": 2.5e-4, "weight_decay": 5e-4, "head_lr_mult": 10.0}
EXPECTED = {  # learning rate, weight decay
    "backbone": (2.5e-4, 5e-4),
    "backbone.bias": (5e-4, 0),
    "head.weight": (2.5e-3, 5e-4),
    "head.bias": (5e-3, 0),
}


def build(name):
    with torch.device("meta"):
        return DeepLabV2(21, **NETS[name])


def names_by_group(net):
    names = {id(p): name for name, p in net.named_parameters()}
    return {
        group["name"]: {names[id(p)] for p in group["params"]}
        for group in parameter_groups(net, **BASE)
    }


@pytest.mark.parametrize("name", NETS)
def test_every_trainable_parameter_is_in_exactly_one_group(name):
    net = build(name)
    groups = parameter_groups(net, **BASE)
    found = [id(p) for group in groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    assert all(group["params"] for group in groups)


@pytest.mark.parametrize("name", NETS)
def test_rates_and_decay_are_the_released_ones(name):
    for group in parameter_groups(build(name), **BASE):
        found = group["lr"], group["weight_decay"]
        assert found == pytest.approx(EXPECTED[group["name"]]), group["name"]


@pytest.mark.parametrize("name", ["resnet_frozen", "resnet_batch"])
def test_a_resnet_learns_slowly_and_its_classifiers_fast(name):
    groups = names_by_group(net := build(name))
    branches = range(4)
    assert groups.pop("head.weight") == {f"head.branches.{i}.weight" for i in branches}
    assert groups.pop("head.bias") == {f"head.branches.{i}.bias" for i in branches}
    rest = {n for n, _ in net.named_parameters() if n.startswith("backbone.")}
    assert groups == {"backbone": rest}


def test_frozen_normalization_is_not_in_the_optimizer():
    groups = names_by_group(build("resnet_frozen"))
    assert not [n for n in groups["backbone"] if "bn" in n or "downsample.1" in n]
    assert len(groups["backbone"]) == 104  # ResNet-101's convolutions


@pytest.mark.parametrize(("name", "branches"), [("vgg16_aspp", 4), ("vgg16_largefov", 1)])
def test_of_vgg16_only_fc8_is_new(name, branches):
    groups = names_by_group(build(name))
    fc8 = {f"head.branches.{i}.fc8" for i in range(branches)}
    assert groups["head.weight"] == {f"{x}.weight" for x in fc8}
    assert groups["head.bias"] == {f"{x}.bias" for x in fc8}
    assert len(groups["backbone"]) == len(groups["backbone.bias"]) == 13 + 2 * branches
    assert {"head.branches.0.fc6.weight", "head.branches.0.fc7.weight"} < groups["backbone"]
    assert {"backbone.features.0.bias", "head.branches.0.fc6.bias"} < groups["backbone.bias"]


def test_all_of_aspp_concat_is_new():
    groups = names_by_group(net := build("aspp_concat"))
    head = {n for n, _ in net.named_parameters() if n.startswith("head.")}
    biases = {n for n in head if n.endswith(".bias")}
    assert groups["head.bias"] == biases
    assert groups["head.weight"] == head - biases
    assert "head.classifier.bias" in biases
    assert "backbone.bias" not in groups


def test_a_parameter_that_is_switched_off_is_left_out():
    net = build("resnet_batch")
    net.backbone.requires_grad_(requires_grad=False)
    assert set(names_by_group(net)) == {"head.weight", "head.bias"}


def test_two_steps_worked_out_by_hand():
    net = DeepLabV2(3, backbone="resnet10_quarter", norm="batch", atrous_rates=(2,))
    sgd = build_optimizer(parameter_groups(net, lr=0.1, weight_decay=0.5, head_lr_mult=10.0))
    weight, bias = net.head.branches[0].weight, net.head.branches[0].bias
    stem = net.backbone.conv1.weight
    with torch.no_grad():
        for p in (stem, weight, bias):
            p.fill_(1.0)
    for gradient in (2.0, 1.0):
        for p in (stem, weight, bias):
            p.grad = torch.full_like(p, gradient)
        sgd.step()
    # v₁ = 2 + 0.5·1 = 2.5, p₁ = 1 − 0.1·2.5 = 0.75; v₂ = 0.9·2.5 + 1 + 0.5·0.75, p₂ = p₁ − 0.1·v₂
    assert stem.unique().tolist() == pytest.approx([0.3875])
    # rate 1: p₁ = −1.5; v₂ = 2.25 + 1 − 0.75 = 2.5, p₂ = −4
    assert weight.unique().tolist() == pytest.approx([-4.0])
    # rate 2, no decay: p₁ = 1 − 2·2 = −3; v₂ = 1.8 + 1, p₂ = −3 − 5.6
    assert bias.unique().tolist() == pytest.approx([-8.6])


@pytest.mark.parametrize("name", ["resnet_frozen", "vgg16_aspp"])
def test_biases_may_learn_and_decay_like_the_weights_beside_them(name):
    """The groups of AdaptSegNet's optim_parameters: lr, and ten times that for the heads."""
    net = build(name)
    like_weights = {"bias_lr_mult": 1.0, "bias_weight_decay": True}
    groups = {g["name"]: g for g in parameter_groups(net, **BASE, **like_weights)}
    plain = {g["name"]: g for g in parameter_groups(net, **BASE)}
    assert groups.keys() == plain.keys()
    for group, before in ((groups[name], plain[name]) for name in groups):
        assert list(map(id, group["params"])) == list(map(id, before["params"]))
        assert group["lr"] == pytest.approx(2.5e-3 if "head" in group["name"] else 2.5e-4)
        assert group["weight_decay"] == 5e-4


def test_both_heads_learn_fast():
    with torch.device("meta"):
        net = DeepLabV2(19, backbone="resnet50", norm="frozen_affine", aux_head=True)
    groups = names_by_group(net)
    heads = [f"{head}.branches.{i}" for head in ("head", "aux_head") for i in range(4)]
    assert groups["head.weight"] == {f"{name}.weight" for name in heads}
    assert groups["head.bias"] == {f"{name}.bias" for name in heads}
    assert not [name for name in groups["backbone"] if "bn" in name or "downsample.1" in name]
    assert len(groups["backbone"]) == 53  # ResNet-50's convolutions


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bias_lr_mult": -1.0}, "bias_lr_mult is out of range: -1.0, expected 0 or more"),
        ({"bias_lr_mult": float("nan")}, "bias_lr_mult is out of range: nan"),
        ({"bias_lr_mult": 1e300}, "bias_lr_mult 1e\\+300.* larger than float32 holds"),
        ({"aux_weight": -0.1, "aux_head": True}, "aux_weight is out of range: -0.1"),
        ({"aux_weight": 0.5}, "aux_weight is 0.5, .* set --model.aux_head true"),
    ],
    ids=str,
)
def test_numbers_with_which_nothing_can_be_trained_are_refused(make_module, options, words):
    with pytest.raises(ValueError, match=words):
        make_module(**options)
