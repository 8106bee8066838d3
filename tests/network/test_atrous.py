"""Atrous surgery: what a strided classifier computes is kept, only denser."""

import functools

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from deeplab_lit.network.atrous import make_atrous
from deeplab_lit.network.backbone import VGG16, build_backbone


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomise_norms(net):
    for m in net.modules():
        if hasattr(m, "running_mean"):
            with torch.no_grad():
                m.running_mean.normal_(std=0.1)
                m.running_var.uniform_(0.5, 2)
                m.weight.uniform_(0.5, 1.5)
                m.bias.normal_(std=0.1)


def strided_torchvision(name, style, state):
    """torchvision's own classifier up to layer4; for caffe with the stride moved by hand."""
    with torch.device("meta"):  # no weights are drawn that are replaced
        ref = torchvision.models.get_model(name, weights=None).double()
    ref.fc = nn.Linear(1, 1)
    ref.to_empty(device="cpu")
    missing, unexpected = ref.load_state_dict(state, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"}  # of the classifier, which is left away
    assert not unexpected
    if style == "caffe":
        ref.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        for stage in (ref.layer2, ref.layer3, ref.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return nn.Sequential(*list(ref.children())[:-2]).eval()


def strided_tiny(state):
    """One basic block a stage, written out."""

    def conv_norm(x, conv, norm, stride):
        w = state[f"{conv}.weight"]
        x = F.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{norm}.{key}"] for key in keys))

    def forward(x):
        x = F.max_pool2d(conv_norm(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
        for i, stride in ((1, 1), (2, 2), (3, 2), (4, 2)):
            b = f"layer{i}.0"
            y = conv_norm(x, f"{b}.conv1", f"{b}.bn1", stride).relu()
            y = conv_norm(y, f"{b}.conv2", f"{b}.bn2", 1)
            if i > 1:
                x = conv_norm(x, f"{b}.downsample.0", f"{b}.downsample.1", stride)
            x = (x + y).relu()
        return x

    return forward


@functools.cache
def dense_and_strided(name, style, output_stride):
    """A backbone, and its strided counterpart with the same weights; drawing them is slow."""
    net = build_backbone(name, output_stride, style, "batch").double().eval()
    randomise_norms(net)
    state = net.state_dict()
    tiny = name == "resnet10_quarter"
    return net, strided_tiny(state) if tiny else strided_torchvision(name, style, state)


@pytest.mark.parametrize("size", [(64, 32), (65, 33), (38, 51)], ids=str)
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("resnet10_quarter", "torchvision"),
        ("resnet18", "torchvision"),
        ("resnet50", "torchvision"),
        ("resnet50", "caffe"),
    ],
)
def test_dense_features_subsampled_equal_the_strided_networks(name, style, output_stride, size):
    net, reference = dense_and_strided(name, style, output_stride)
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        dense, strided = net(x), reference(x)
    gain = 32 // output_stride
    assert dense.shape[-1] > strided.shape[-1]
    torch.testing.assert_close(dense[..., ::gain, ::gain], strided, rtol=1e-9, atol=1e-9)


def build_vgg(output_stride, style):
    """Without torchvision's slow initialization of a classifier that is thrown away."""
    with torch.device("meta"):
        net = VGG16(output_stride, style)
    net = net.to_empty(device="cpu").double().eval()
    for conv in net.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.normal_(conv.weight, std=(2 / conv.weight[0].numel()) ** 0.5)
            nn.init.normal_(conv.bias, std=0.1)
    return net


@pytest.mark.parametrize("style", ["torchvision", "caffe"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_vgg_features_up_to_conv5_3_equal_the_strided_networks(output_stride, style):
    net = build_vgg(output_stride, style)
    x = torch.randn(1, 3, 65, 42, dtype=torch.float64)
    convs = iter([m for m in net.modules() if isinstance(m, nn.Conv2d)])
    with torch.no_grad():
        dense = net.features[:30](x)
        strided = x
        for stage, depth in enumerate((2, 2, 3, 3, 3)):
            if stage:
                strided = F.max_pool2d(strided, 3, 2, 1, ceil_mode=style == "caffe")
            for _ in range(depth):
                conv = next(convs)
                strided = F.conv2d(strided, conv.weight, conv.bias, padding=1).relu()
    gain = 16 // output_stride
    torch.testing.assert_close(dense[..., ::gain, ::gain], strided, rtol=1e-9, atol=1e-9)


def rates(net):
    """{name: dilation} of all 3×3 convolutions, whose padding keeps the size."""
    convs = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    found = {n: m for n, m in convs.items() if m.kernel_size == (3, 3)}
    assert all(m.padding == m.dilation for m in found.values())
    return {n: m.dilation[0] for n, m in found.items()}


@pytest.mark.parametrize(
    ("output_stride", "res4", "res5"), [(8, 2, 4), (16, 1, 2), (32, 1, 1)], ids=str
)
@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_caffe_rates_are_the_released_ones_from_the_first_block_on(name, output_stride, res4, res5):
    with torch.device("meta"):
        net = build_backbone(name, output_stride, "caffe", "frozen")
    found = rates(net)
    assert len(found) == {"resnet50": 16, "resnet101": 33}[name]
    expected = {"layer1": 1, "layer2": 1, "layer3": res4, "layer4": res5}
    assert found == {n: expected[n.split(".")[0]] for n in found}


@pytest.mark.parametrize(
    ("output_stride", "replace"), [(8, [False, True, True]), (16, [False, False, True])]
)
@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_torchvision_rates_are_those_of_torchvisions_own_option(name, output_stride, replace):
    with torch.device("meta"):
        net = build_backbone(name, output_stride, "torchvision", "frozen")
        ref = torchvision.models.get_model(name, weights=None, replace_stride_with_dilation=replace)
    assert rates(net) == rates(ref)
    if output_stride == 8:  # the first block's 3×3 keeps the rate of the stage before
        expected = {"layer3.0.conv2": 1, "layer3.1.conv2": 2, "layer4.0.conv2": 2}
        assert {n: rates(net)[n] for n in expected} == expected


@pytest.mark.parametrize(
    ("output_stride", "conv5", "strides"),
    [(8, 2, [2, 2, 2, 1, 1]), (16, 1, [2, 2, 2, 2, 1]), (32, 1, [2, 2, 2, 2, 2])],
)
def test_vgg_rates_and_pooling_strides_are_the_released_ones(output_stride, conv5, strides):
    with torch.device("meta"):
        net = VGG16(output_stride, "caffe")
    assert list(rates(net).values()) == [1] * 10 + [conv5] * 3
    pools = [m for m in net.modules() if isinstance(m, nn.MaxPool2d)]
    assert [(m.kernel_size, m.stride, m.padding) for m in pools] == [(3, s, 1) for s in strides]


def test_kernels_of_any_odd_size_are_made_atrous():
    def chain():
        return [nn.Conv2d(2, 2, k, s, k // 2) for k, s in ((7, 4), (5, 2), (5, 2), (3, 2), (7, 1))]

    strided, dense = nn.Sequential(*chain()).double(), nn.Sequential(*chain()).double()
    dense.load_state_dict(strided.state_dict())
    make_atrous(dense, 8)
    x = torch.randn(1, 2, 75, 81, dtype=torch.float64)
    assert [m.dilation[0] for m in dense] == [1, 1, 1, 2, 4]
    torch.testing.assert_close(dense(x)[..., ::4, ::4], strided(x))


@pytest.mark.parametrize("output_stride", [0, 4, 12, 64])
@pytest.mark.parametrize("name", ["resnet10_quarter", "vgg16"])
def test_another_output_stride_is_refused(name, output_stride):
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=rf"output_stride.*8, 16, 32.*got {output_stride}"),
    ):
        build_backbone(name, output_stride, "caffe", "frozen")


def test_more_than_the_stride_that_a_network_has_is_refused():
    with pytest.raises(ValueError, match=r"output_stride is at most 8 .*got 16"):
        build_backbone("resnet6_half", 16, "torchvision", "batch")
