import pytest
import torch
from torch import nn

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.receptive_field import (
    effective_fields,
    middle_pixel,
    rate_of,
    real_taps,
    share_of_real_taps,
    side_of,
    theoretical_field,
)


def build(classes=3, **kwargs):
    options = {"backbone": "resnet10_quarter", "norm": "batch", "scales": (1.0,)}
    return DeepLabV2(classes, **(options | kwargs)).eval()


def noise(*shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float()


def class_by_class(net, branch, images):
    """The field (H,W), by a loop over images and classes."""
    field = torch.zeros(images.shape[-2:])
    y, x = (place // 8 for place in middle_pixel(net, *images.shape[-2:]))
    for image in images:
        for label in range(net.num_classes):
            pixels = image[None].clone().requires_grad_()
            logits = net.head.branches[branch](net.backbone(net.preprocess(pixels)))[0, :, y, x]
            others = torch.cat([logits[:label], logits[label + 1 :]])
            # a logit less the mean of all is (1 − 1/C) times the logit less the mean of the others
            (logits[label] - others.mean()).backward()
            field += pixels.grad[0].abs().sum(0)
    return field / field.sum()


def open_up(net):
    """All weights positive, so that no gradient is lost in a ReLU or cancels another."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.abs_()
        if isinstance(module, nn.MaxPool2d):  # passes a gradient to one of its inputs only
            size, stride, padding = module.kernel_size, module.stride, module.padding
            module.forward = nn.AvgPool2d(size, stride, padding, module.ceil_mode).forward
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
    fields = effective_fields(net, images)
    for branch in range(len(options["atrous_rates"])):
        branch += options.get("head") == "aspp_concat"  # its first is the 1×1
        reached = (fields[branch] > 0).nonzero()
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
    net = build(atrous_rates=(6, 2))
    images = torch.randint(0, 256, (2, 3, 97, 129), dtype=torch.uint8)
    fields = effective_fields(net, images)
    assert fields.shape == (2, 97, 129)
    assert fields.sum((1, 2)).tolist() == pytest.approx([1, 1])
    assert (fields >= 0).all()


def test_a_field_is_the_mean_over_the_classes():
    """Of each class's logit less the mean of all, by a slow loop."""
    net, images = build(atrous_rates=(1, 4)), noise(2, 3, 97, 121)
    for branch, field in enumerate(effective_fields(net, images)):
        torch.testing.assert_close(field, class_by_class(net, branch, images))


def test_of_many_classes_random_sums_stand_in():
    """With them less than a tenth of the field lies elsewhere."""
    net, images = build(classes=30, atrous_rates=(2,)), noise(4, 3, 97, 97)
    (field,) = effective_fields(net, images)
    exact = class_by_class(net, 0, images)
    assert 0 < (field - exact).abs().sum() / 2 < 0.1
    assert side_of(field, (48, 48)) == pytest.approx(side_of(exact, (48, 48)), abs=2)


@pytest.mark.parametrize("classes", [3, 30])
@pytest.mark.parametrize("backbone", ["resnet10_quarter", "vgg16"])
def test_what_all_classes_share_is_not_seen(backbone, classes):
    """Cross-entropy does not see it either: training leaves it as it was initialized."""
    net, images = build(classes, backbone=backbone, atrous_rates=(3,)), noise(1, 3, 65, 65)
    before = effective_fields(net, images)
    classifier = net.head.new_layers()[0]
    with torch.no_grad():
        classifier.weight += torch.randn_like(classifier.weight[:1])  # a hundred times as much
        classifier.bias += 5
    torch.testing.assert_close(effective_fields(net, images), before, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        classifier.weight[0] += torch.randn_like(classifier.weight[0])
    assert (effective_fields(net, images) - before).abs().sum() > 0.1


def test_one_image_is_in_memory_at_a_time_without_its_parameters_and_once_for_all_branches():
    net = build(atrous_rates=(1, 2, 4)).train()
    net.backbone.bn1.eval()
    net.backbone.conv1.weight.requires_grad_(False)
    seen = []

    def look(module, inputs, features):
        wanted = any(p.requires_grad for p in net.parameters())
        seen.append((len(inputs[0]), net.training, wanted, features.requires_grad))

    net.backbone.register_forward_hook(look)
    effective_fields(net, noise(3, 3, 65, 65))
    assert seen == [(1, False, False, True)] * 3
    # as it was
    assert net.training
    assert net.backbone.layer1.training
    assert not net.backbone.bn1.training
    still = [name for name, p in net.named_parameters() if not p.requires_grad]
    assert still == ["backbone.conv1.weight"]
    assert all(p.grad is None for p in net.parameters())


def test_a_larger_rate_looks_farther():
    torch.manual_seed(0)
    net = build(atrous_rates=(1, 6))
    near, far = (
        side_of(field, (160, 160)) for field in effective_fields(net, noise(2, 3, 321, 321))
    )
    assert near < far <= theoretical_field(net, 1)


@pytest.mark.parametrize("size", [(65, 97), (360, 120), (93, 117), (100, 99)])
@pytest.mark.parametrize("style", ["caffe", "torchvision"])
def test_a_field_lies_around_the_pixel_of_its_cell(size, style):
    """Which is seldom the image's middle; the sides are those of what gradient reaches."""
    net = open_up(build(backbone="resnet6_half", head="conv1x1", atrous_rates=(), style=style))
    center = middle_pixel(net, *size)
    for place, pixels in zip(center, size, strict=True):
        assert abs(place - (pixels - 1) / 2) <= 4
    (field,) = effective_fields(net, noise(1, 3, *size))
    reached = (field > 0).nonzero()
    assert reached.min(0).values.tolist() == [place - 25 for place in center]
    assert reached.max(0).values.tolist() == [place + 25 for place in center]
    assert side_of(field, center, 1.0) == theoretical_field(net, 0) == 51


def test_the_pixel_of_the_middle_cell():
    """By hand: 360×480 pixels have 45×60 cells, of which (22,30) is nearest to (179.5,239.5)."""
    assert middle_pixel(build(), 360, 480) == (176, 240)
    assert middle_pixel(build(), 161, 161) == (80, 80)
    assert middle_pixel(build(output_stride=32), 161, 225) == (96, 128)
    assert middle_pixel(build(), 7, 16) == (0, 8)


def test_the_side_of_a_field():
    field = torch.zeros(9, 9)
    field[4, 4], field[4, 6], field[0, 4] = 0.5, 0.4, 0.1
    assert [side_of(field, (4, 4), share) for share in (0.4, 0.8, 1.0)] == [1, 5, 9]
    assert [side_of(field, (4, 5), share) for share in (0.4, 0.8, 1.0)] == [3, 3, 9]
    assert side_of(torch.zeros(9, 9), (4, 4)) == 0


def test_the_whole_of_a_field_is_reached():
    """Though its sum, rounded, is another in single and in double precision."""
    for seed in range(20):
        field = torch.rand(61, 61, generator=torch.Generator().manual_seed(seed))
        assert side_of(field / field.sum(), (30, 30), 1.0) == 61


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
