"""Backbones: sizes, numbers of weights, frozen normalization, recomputation."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from deeplab_lit.network.backbone import (
    VGG16,
    BackboneName,
    FrozenBatchNorm2d,
    build_backbone,
    recomputed,
)
from deeplab_lit.network.head import build_head

RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def learnable(net):
    """Numbers that a released file stores: parameters, and the affine of frozen normalization."""
    frozen = [m for m in net.modules() if isinstance(m, FrozenBatchNorm2d)]
    return sum(p.numel() for p in net.parameters()) + sum(
        m.weight.numel() + m.bias.numel() for m in frozen
    )


def norm_statistics(width):
    return {
        "weight": torch.rand(width) + 0.5,
        "bias": torch.randn(width),
        "running_mean": torch.randn(width),
        "running_var": torch.rand(width) + 0.5,
    }


def test_frozen_norm_equals_torchvisions_and_batch_norm_in_eval():
    state = norm_statistics(6)
    ours, theirs = FrozenBatchNorm2d(6), torchvision.ops.FrozenBatchNorm2d(6)
    plain = nn.BatchNorm2d(6).eval()
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    plain.load_state_dict(state, strict=False)
    x = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(ours.train()(x), theirs(x))
    torch.testing.assert_close(ours(x), plain(x))


def test_frozen_norm_keeps_bfloat16_and_is_as_exact_as_it_can_be():
    norm = FrozenBatchNorm2d(6)
    norm.load_state_dict(norm_statistics(6))
    x = torch.randn(2, 6, 5, 7).bfloat16()
    y = norm(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), norm(x.float()), rtol=2**-7, atol=1e-2)


def test_frozen_norm_takes_a_state_dict_of_a_trainable_one():
    plain = nn.BatchNorm2d(4)
    plain(torch.randn(3, 4, 5, 5))
    frozen = FrozenBatchNorm2d(4)
    frozen.load_state_dict(plain.state_dict())
    x = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(frozen(x), plain.eval()(x))


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_a_training_step_leaves_frozen_buffers_alone_and_trains_the_rest(norm):
    net = build_backbone("resnet10_quarter", 8, "torchvision", norm).train()
    buffers, weights = copy.deepcopy((dict(net.named_buffers()), dict(net.named_parameters())))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    net(torch.randn(2, 3, 33, 33)).square().mean().backward()
    optimizer.step()
    assert not any(torch.equal(p, weights[n]) for n, p in net.named_parameters())
    unchanged = [torch.equal(b, buffers[n]) for n, b in net.named_buffers()]
    assert len(unchanged) > 0
    assert all(unchanged) if norm == "frozen" else not any(unchanged)
    trained = {n for n, _ in net.named_parameters() if ".bn" in n or n.startswith("bn")}
    assert bool(trained) == (norm == "batch")


def batch_norms(net):
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def test_with_frozen_affine_statistics_follow_the_batches_and_weight_and_bias_stay():
    """As in the networks of AdaptSegNet: normalization that is trained, but for its parameters."""
    net = build_backbone("resnet10_quarter", 8, "torchvision", "frozen_affine").train()
    plain = build_backbone("resnet10_quarter", 8, "torchvision", "batch").train()
    for norm in batch_norms(plain):
        norm.load_state_dict(norm_statistics(norm.num_features), strict=False)
        for parameter in norm.parameters():
            parameter.requires_grad = False
    net.load_state_dict(plain.state_dict())
    affine = copy.deepcopy([norm.weight for norm in batch_norms(net)])
    for _ in range(2):
        x = torch.randn(2, 3, 33, 33)
        for backbone in (plain, net):
            optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, weight_decay=0.1)
            optimizer.zero_grad()
            backbone(x).square().mean().backward()
            optimizer.step()
    for (name, expected), found in zip(
        plain.state_dict().items(), net.state_dict().values(), strict=True
    ):
        assert found.equal(expected), name
    assert all(norm.weight.equal(w) for norm, w in zip(batch_norms(net), affine, strict=True))
    assert all(norm.weight.grad is None for norm in batch_norms(net))
    assert {int(norm.num_batches_tracked) for norm in batch_norms(net)} == {2}
    net.eval()
    torch.testing.assert_close(net(x[:1]), net(x)[:1])  # by the running statistics


def test_frozen_affine_stays_so_where_processes_share_their_statistics():
    net = build_backbone("resnet10_quarter", 8, "torchvision", "frozen_affine")
    shared = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    norms = [m for m in shared.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(norms) == 12
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())


@pytest.mark.parametrize("name", RESNETS)
def test_every_resnet_has_torchvisions_weights_without_the_classifier(name):
    with torch.device("meta"):
        net = build_backbone(name, 8, "torchvision", "batch")
        ref = torchvision.models.get_model(name, weights=None)
    shapes = {k: v.shape for k, v in ref.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in net.state_dict().items()} == shapes
    assert net.out_channels == ref.fc.in_features


def test_vgg_has_torchvisions_feature_weights():
    with torch.device("meta"):
        net = build_backbone("vgg16", 8, "torchvision", "frozen")
        ref = torchvision.models.vgg16(weights=None)
    shapes = {k: v.shape for k, v in ref.state_dict().items() if k.startswith("features.")}
    assert {k: v.shape for k, v in net.state_dict().items()} == shapes


@pytest.mark.parametrize("name", BackboneName.__args__)
@pytest.mark.parametrize("norm", ["frozen", "frozen_affine", "batch"])
def test_every_name_gives_features_of_the_promised_width(name, norm):
    with torch.device("meta"):
        net = build_backbone(name, 8, "caffe", norm)
        features = net(torch.empty(1, 3, 65, 33))
    assert features.shape == (1, net.out_channels, 9, 5)


@pytest.mark.parametrize("name", ["resnet20", "vgg19", "ResNet101", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"backbone must be one of .*resnet101.*vgg16") as error:
        build_backbone(name, 8, "torchvision", "frozen")
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("backbone", "head", "rates", "count"),
    [
        ("resnet101", None, None, 42_500_160),
        ("resnet101", "aspp", (6, 12, 18, 24), 44_048_532),
        ("resnet101", "largefov", (12,), 42_500_160 + 387_093),
        ("resnet101", "conv1x1", (), 42_500_160 + 2048 * 21 + 21),
        ("vgg16", "largefov", (12,), 20_505_429),
        ("vgg16", "aspp", (6, 12, 18, 24), 37_877_652),
    ],
)
def test_number_of_weights_is_that_of_the_release(backbone, head, rates, count):
    with torch.device("meta"):
        net = nn.ModuleList([build_backbone(backbone, 8, "caffe", "frozen")])
        if head:
            vgg, width = backbone == "vgg16", net[0].out_channels
            net.append(
                build_head(head, vgg=vgg, in_channels=width, num_classes=21, atrous_rates=rates)
            )
    assert learnable(net) == count


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
@pytest.mark.parametrize(
    ("style", "size", "cells"),
    [
        *(("caffe", (n, n), (c, c)) for n, c in ((161, 21), (241, 31), (321, 41))),
        *(("caffe", (n, n), (c, c)) for n, c in ((505, 64), (513, 65), (641, 81), (769, 97))),
        ("torchvision", (321, 321), (41, 41)),
        ("caffe", (1024, 2048), (129, 257)),
        ("torchvision", (1024, 2048), (128, 256)),
    ],
    ids=str,
)
def test_feature_map_has_the_size_of_the_released_networks(name, style, size, cells):
    with torch.device("meta"):
        net = build_backbone(name, 8, style, "frozen")
        assert net(torch.empty(1, 3, *size)).shape[-2:] == cells


def build_vgg():
    """Without torchvision's slow initialization of a classifier that is thrown away."""
    with torch.device("meta"):
        net = VGG16(8, "torchvision")
    net = net.to_empty(device="cpu")
    for conv in net.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)
    return net


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("resnet10_quarter", "frozen"),
        ("resnet10_quarter", "frozen_affine"),
        ("resnet10_quarter", "batch"),
        ("vgg16", "frozen"),
    ],
)
def test_gradient_checkpointing_changes_memory_only(name, norm):
    vgg = name == "vgg16"
    plain = build_vgg() if vgg else build_backbone(name, 8, "torchvision", norm)
    thrifty = copy.deepcopy(plain)
    thrifty.gradient_checkpointing = True
    calls = []
    next(iter(thrifty.parts()))[0].register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 3, 33, 33)
    for net in (plain, thrifty):
        net.train()(x).square().mean().backward()
    assert len(calls) == 2  # it did compute a second time
    for (n, p), q in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        if not p.requires_grad:
            assert q.grad is None
            continue
        assert p.grad.any(), n
        torch.testing.assert_close(q.grad, p.grad, rtol=0, atol=0, msg=n)
    for (n, p), q in zip(plain.named_buffers(), thrifty.buffers(), strict=True):
        torch.testing.assert_close(q, p, rtol=0, atol=0, msg=n)


def test_gradient_checkpointing_recomputes_nothing_in_eval():
    net = build_backbone("resnet10_quarter", 8, "torchvision", "frozen").eval()
    net.gradient_checkpointing = True
    calls = []
    net.conv1.register_forward_hook(lambda *_: calls.append(1))
    net(torch.randn(1, 3, 33, 33)).sum().backward()
    assert len(calls) == 1


def test_gradients_and_statistics_are_those_of_an_ordinary_pass():
    """Of trained normalization and dropout, whose second pass may neither count nor draw anew."""
    part = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5))
    other = copy.deepcopy(part)
    x = torch.randn(4, 2, 9, 9)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.manual_seed(1)
    part(one).square().sum().backward()
    torch.manual_seed(1)
    recomputed(other, two).square().sum().backward()
    torch.testing.assert_close(two.grad, one.grad, rtol=0, atol=0)
    for expected, found in zip(
        part.state_dict().values(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for expected, found in zip(part.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=0)
    assert (other[1].momentum, int(other[1].num_batches_tracked)) == (0.1, 1)
