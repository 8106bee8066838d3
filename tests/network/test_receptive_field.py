import pytest
import torch
from torch import nn

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.receptive_field import (
    effective_field,
    rate_of,
    real_taps,
    share_of_real_taps,
    side_of,
    theoretical_field,
)


def build(**kwargs):
    options = {"backbone": "resnet10_quarter", "norm": "batch", "scales": (1.0,)}
    return DeepLabV2(3, **(options | kwargs)).eval()


def open_up(net):
    """All weights positive, so that no gradient is lost in a ReLU or cancels another."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.abs_()
        if isinstance(module, nn.MaxPool2d):  # passes a gradient to one of its inputs only
            size, stride, padding = module.kernel_size, module.stride, module.padding
            module.forward = nn.AvgPool2d(size, stride, padding).forward
    return net


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"atrous_rates": (1, 4)}, 289),
        ({"atrous_rates": (2,), "output_stride": 16}, 385),
        ({"atrous_rates": (1, 4), "backbone": "resnet6_half"}, 129),
        ({"atrous_rates": (3, 5), "head": "aspp_concat"}, 353),
    ],
)
def test_the_theoretical_field_is_where_gradient_can_reach(options, size):
    net = open_up(build(**options))
    images = torch.full((1, 3, size, size), 250.0)
    for branch in range(len(options["atrous_rates"])):
        branch += options.get("head") == "aspp_concat"  # its first is the 1×1
        reached = (effective_field(net, branch, images) > 0).nonzero()
        side = theoretical_field(net, branch)
        assert side < size
        assert (reached.max(0).values - reached.min(0).values + 1).tolist() == [side, side]


def test_fields_counted_by_hand():
    """By hand: VGG-16 at stride 8 up to pool5, its fc6 of rate 12; each rate step adds 16."""
    net = DeepLabV2(3, backbone="vgg16", head="largefov", atrous_rates=(12,), scales=(1.0,))
    # conv1 5, pool1 7, conv2 15, pool2 19, conv3 43, pool3 51, conv4 99, pool4 115, conv5 of rate 2
    # 211, pool5 227, pool5a 243, fc6 of rate 12 435
    assert theoretical_field(net, 0) == 435
    # conv1 7, pool 11, layer1 27, layer2 51, and the head's rate of 1
    assert theoretical_field(build(backbone="resnet6_half", atrous_rates=(1,)), 0) == 51 + 16
    net = build(atrous_rates=(6, 7))
    assert theoretical_field(net, 1) - theoretical_field(net, 0) == 16


def test_rates_are_those_of_the_branches():
    assert [rate_of(build(atrous_rates=(6, 12)), i) for i in (0, 1)] == [6, 12]
    concat = build(atrous_rates=(3, 5), head="aspp_concat")
    assert [rate_of(concat, i) for i in range(4)] == [None, 3, 5, None]


def test_an_effective_field_is_a_distribution_over_the_image():
    net = build(atrous_rates=(6,)).train()
    images = torch.randint(0, 256, (2, 3, 97, 129), dtype=torch.uint8)
    field = effective_field(net, 0, images)
    assert field.shape == (97, 129)
    assert field.sum().item() == pytest.approx(1)
    assert (field >= 0).all()
    assert net.training  # as it was
    assert all(p.grad is None for p in net.parameters())


def test_a_larger_rate_looks_farther():
    torch.manual_seed(0)
    net = build(atrous_rates=(1, 6))
    images = torch.randint(0, 256, (2, 3, 321, 321)).float()
    near, far = (side_of(effective_field(net, i, images)) for i in (0, 1))
    assert near < far <= theoretical_field(net, 1)


def test_the_side_of_a_field():
    field = torch.zeros(9, 9)
    field[4, 4], field[4, 6], field[0, 4] = 0.5, 0.4, 0.1
    assert [side_of(field, share) for share in (0.4, 0.8, 1.0)] == [1, 5, 9]
    assert side_of(torch.zeros(9, 9)) == 0


@pytest.mark.parametrize(("rate", "height", "width"), [(1, 5, 7), (3, 5, 7), (6, 5, 7), (9, 5, 7)])
def test_real_taps_are_those_that_a_convolution_meets(rate, height, width):
    ones, kernel = torch.ones(1, 1, height, width), torch.ones(1, 1, 3, 3)
    met = nn.functional.conv2d(ones, kernel, padding=rate, dilation=rate)[0, 0]
    assert torch.equal(real_taps(rate, height, width), met.long())


def test_a_rate_as_large_as_the_grid_leaves_a_1x1():
    assert share_of_real_taps(41, 41, 41) == pytest.approx(1 / 9)
    # along one side 41 + 2·17 of 3·41 taps meet features
    assert share_of_real_taps(24, 41, 41) == pytest.approx((75 / 123) ** 2)
    assert share_of_real_taps(1, 41, 41) > 0.96
