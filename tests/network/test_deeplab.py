"""The whole network: sizes, precision, and that every argument reaches what it names."""

import copy
import warnings

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.v2 import functional as T

from deeplab_lit.network.deeplab import DeepLabV2, Preprocess

MSC = (1.0, 0.75, 0.5)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def build(num_classes=5, **kwargs):
    tiny = {"backbone": "resnet10_quarter", "norm": "batch", "atrous_rates": (1, 2)}
    return DeepLabV2(num_classes, **(tiny | kwargs)).eval()


def picture(*size, batch=1):
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)


@pytest.mark.parametrize("size", [(33, 33), (97, 65), (33, 200), (64, 50)], ids=str)
@pytest.mark.parametrize("style", ["torchvision", "caffe"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@torch.no_grad()
def test_logits_have_the_size_of_the_image(size, style, output_stride):
    net = build(style=style, output_stride=output_stride)
    logits = net(picture(*size, batch=2))
    assert logits.shape == (2, 5, *size)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@torch.no_grad()
def test_autocast_runs_in_bfloat16_and_still_returns_float32():
    net, images = build(), picture(65, 49)
    exact = net(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert net.logits(images).fused.dtype == torch.bfloat16
        logits = net(images)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, exact)
    torch.testing.assert_close(logits, exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


@torch.no_grad()
def test_uint8_and_float_images_give_the_same():
    net, images = build(), picture(33, 41)
    assert torch.equal(net(images), net(images.float()))


@pytest.mark.parametrize("align_corners", [True, False])
@torch.no_grad()
def test_one_scale_is_backbone_head_and_bilinear_upsampling(align_corners):
    net, images = build(scales=(1,), align_corners=align_corners), picture(57, 41)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    coarse = net.head(net.backbone((images - mean) / std))
    assert coarse.shape[-2:] == (8, 6)
    expected = F.interpolate(coarse, (57, 41), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(net(images), expected)


@torch.no_grad()
def test_fused_logits_are_the_image_sized_ones_at_every_eighth_pixel():
    net, images = build(scales=MSC), picture(65, 33)
    torch.testing.assert_close(net(images)[..., ::8, ::8], net.logits(images).fused)


@pytest.mark.parametrize("style", ["caffe", "torchvision"])
def test_authors_grids_at_321_pixels(style):
    with torch.device("meta"):
        net = DeepLabV2(21, backbone="resnet50", style=style)
        images = torch.empty(1, 3, 321, 321, dtype=torch.uint8)
        fused, at_scales = net.logits(images)
    assert fused.shape == (1, 21, 41, 41)
    assert [x.shape[-1] for x in at_scales] == [41, 41, 21]


@torch.no_grad()
def test_scales_share_all_weights_and_can_be_overridden_at_each_call():
    single, multi = build(scales=(1,)), build(scales=MSC)
    multi.load_state_dict(single.state_dict())
    images = picture(65, 97)
    assert not torch.equal(single(images), multi(images))
    assert torch.equal(single(images, scales=MSC), multi(images))
    assert torch.equal(multi(images, scales=(1,)), single(images))
    assert torch.equal(multi.logits(images, [1]).fused, single.logits(images).fused)
    assert single.scales == (1.0,)
    assert multi.scales == MSC


@torch.no_grad()
def test_default_network_is_the_papers():
    with torch.device("meta"):
        net = DeepLabV2(21)
    assert [branch.dilation[0] for branch in net.head.branches] == [6, 12, 18, 24]
    assert len(net.backbone.layer3) == 23
    assert net.backbone.layer4[2].conv2.dilation == (4, 4)
    assert net.scales == MSC
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def test_arguments_reach_the_parts():
    with torch.device("meta"):
        net = DeepLabV2(
            7,
            backbone="resnet50",
            output_stride=16,
            head="aspp_concat",
            atrous_rates=[3, 5],
            style="caffe",
            norm="batch",
            gradient_checkpointing=True,
        )
    convs = [m for m in net.head.modules() if isinstance(m, nn.Conv2d)]
    assert [m.dilation[0] for m in convs if m.kernel_size == (3, 3)] == [3, 5]
    assert net.head.classifier.out_channels == net.num_classes == 7
    assert net.backbone.layer4[0].conv2.dilation == (2, 2)
    assert net.backbone.layer2[0].conv1.stride == (2, 2)
    assert net.backbone.maxpool.ceil_mode
    assert isinstance(net.backbone.bn1, nn.BatchNorm2d)
    assert net.backbone.gradient_checkpointing
    assert not build().backbone.gradient_checkpointing


class PlainMulti(nn.Module):
    """A multi-level DeepLab as its descendants write it, of torchvision's own dilated ResNet."""

    def __init__(self, num_classes):
        super().__init__()
        dilated = {"replace_stride_with_dilation": [False, True, True]}
        self.resnet = torchvision.models.resnet50(**dilated)
        self.layer5, self.layer6 = (
            nn.ModuleList(nn.Conv2d(width, num_classes, 3, 1, r, r) for r in (6, 12))
            for width in (1024, 2048)
        )

    def forward(self, images):
        mean, std = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])
        x = (images - mean[:, None, None]) / std[:, None, None]
        net = self.resnet
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        layer3 = net.layer3(net.layer2(net.layer1(x)))
        layer4 = net.layer4(layer3)
        return sum(c(layer4) for c in self.layer6), sum(c(layer3) for c in self.layer5)

    def weights_as_ours(self):
        names = {"resnet": "backbone", "layer5": "aux_head.branches", "layer6": "head.branches"}
        parts = ((*name.split(".", 1), value) for name, value in self.state_dict().items())
        return {f"{names[k]}.{rest}": v for k, rest, v in parts if not rest.startswith("fc.")}


def multi(**kwargs):
    return build(aux_head=True, **kwargs)


def test_the_auxiliary_head_is_a_second_aspp_on_layer3():
    plain = PlainMulti(5).train()
    options = {"backbone": "resnet50", "norm": "frozen_affine", "scales": (1,)}
    net = DeepLabV2(5, atrous_rates=(6, 12), aux_head=True, **options).train()
    net.load_state_dict(net.preprocess.state_dict(prefix="preprocess.") | plain.weights_as_ours())
    images = picture(65, 49, batch=2)
    expected, expected_aux = plain(images)
    logits, aux = net.logits_and_aux(images)
    for found, wanted in ((logits, expected), (aux, expected_aux)):
        assert found.fused.shape == (2, 5, 9, 7)
        torch.testing.assert_close(found.fused, wanted, rtol=1e-4, atol=1e-4)
        assert found.at_scales[0].equal(found.fused)
    assert net.backbone.layer4[2].bn3.num_batches_tracked == 1  # one pass has counted once
    moved = net.backbone.layer4[2].bn3.running_var
    torch.testing.assert_close(moved, plain.resnet.layer4[2].bn3.running_var)


@pytest.mark.parametrize("output_stride", [8, 32])
@torch.no_grad()
def test_one_backbone_pass_a_scale_gives_both_heads_logits_at_all_scales(output_stride):
    net, images, passes = multi(output_stride=output_stride), picture(65, 97), []
    for head in (net.head, net.aux_head):  # logits far apart
        for branch in head.branches:
            nn.init.normal_(branch.weight, std=0.5)
    net.backbone.register_forward_hook(lambda *_: passes.append(1))
    logits, aux = net.logits_and_aux(images)
    assert len(passes) == 3
    expected = net.logits(images)
    assert all(map(torch.equal, [logits.fused, *logits.at_scales],
                   [expected.fused, *expected.at_scales]))  # fmt: skip
    alone = copy.deepcopy(net)
    alone.backbone.layer4, alone.head = nn.Sequential(), net.aux_head  # layer3 is its last stage
    expected = alone.logits(images)
    assert all(map(torch.equal, [aux.fused, *aux.at_scales],
                   [expected.fused, *expected.at_scales]))  # fmt: skip
    assert aux.fused.shape[-2:] == ((5, 7) if output_stride == 32 else (9, 13))  # of 1/16 there
    assert not aux.fused.equal(logits.fused)


@torch.no_grad()
def test_nothing_but_training_computes_the_auxiliary_head():
    net, images = multi(), picture(65, 49)
    net.aux_head.register_forward_hook(lambda *_: pytest.fail("it was computed"))
    assert net(images).equal(net(images, MSC))
    net.logits(images)


def test_gradient_checkpointing_and_compilation_leave_the_auxiliary_head_as_it_is():
    plain, images = multi(norm="frozen_affine").train(), picture(65, 49)
    thrifty, compiled = copy.deepcopy(plain), copy.deepcopy(plain)
    thrifty.backbone.gradient_checkpointing = True
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    try:
        compiled.compile(backend=backend)
        for net in (plain, thrifty, compiled):
            logits, aux = net.logits_and_aux(images, (1,))
            (logits.fused.square().mean() + aux.fused.square().mean()).backward()
    finally:
        torch._dynamo.reset()
    assert len(graphs) == 3  # backbone and heads
    for net in (thrifty, compiled):
        for (name, p), q in zip(plain.named_parameters(), net.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None) == (not p.requires_grad), name
            if p.requires_grad:
                torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-7, msg=name)
        for (name, b), c in zip(plain.named_buffers(), net.buffers(), strict=True):
            torch.testing.assert_close(c, b, msg=name)


@pytest.mark.parametrize("backbone", ["vgg16", "resnet6_half"])
def test_a_backbone_without_layer3_has_no_place_for_an_auxiliary_head(backbone):
    with torch.device("meta"), pytest.raises(ValueError, match=f"backbone {backbone} has no layer"):
        multi(backbone=backbone)
    with pytest.raises(ValueError, match=r"no auxiliary head: set --model\.aux_head"):
        build().logits_and_aux(picture(33, 33))


@pytest.mark.parametrize(
    ("options", "grid", "giga_macs", "parameters"),
    [
        ({}, (65, 129), 373.656133632, 43_901_068),
        ({"atrous_rates": (6, 12)}, (65, 129), 367.783145472, 43_200_614),
        ({"aux_head": True}, (65, 129), 379.529, 44_601_560),
        ({"style": "torchvision"}, (64, 128), 365.969801216, 43_901_068),
    ],
    ids=["four_branches", "two_branches", "aux_head", "torchvision"],
)
def test_cost_of_the_network_that_domain_adaptation_uses(options, grid, giga_macs, parameters):
    """ResNet-101 of 19 classes on a frame of 512×1024; the counts of such papers' networks."""
    settings = {"style": "caffe", "norm": "frozen_affine", "scales": (1,), **options}
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = DeepLabV2(19, **settings).eval()
        images = torch.empty(1, 3, 512, 1024, dtype=torch.uint8)
        logits = net.logits_and_aux(images)[1] if net.aux_head else net.logits(images)
    assert logits.fused.shape == (1, 19, *grid)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga_macs, abs=0.0005)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("head", ["aspp", "largefov"])
def test_vgg_gets_the_vgg_head(head):
    with torch.device("meta"):
        net = DeepLabV2(3, backbone="vgg16", head=head, atrous_rates=(12,))
        assert net(torch.empty(1, 3, 33, 49, dtype=torch.uint8)).shape == (1, 3, 33, 49)
    assert hasattr(net.head.branches[0], "fc6")


def test_compile_changes_neither_names_nor_results():
    net, images = build(scales=(1, 0.5)), picture(33, 49)
    names, expected = list(net.state_dict()), net(images)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    try:
        net.compile(backend=backend)
        logits = net(images)
    finally:
        torch._dynamo.reset()
    assert len(graphs) >= 2  # backbone and head
    assert list(net.state_dict()) == names
    torch.testing.assert_close(logits, expected)


def test_channels_last_changes_neither_results_nor_gradients():
    plain, fast = build(), build(channels_last=True)
    fast.load_state_dict(plain.state_dict())
    seen = []
    for part in (fast.backbone, fast.head):
        part.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images = picture(41, 57, batch=2)
    one, other = plain(images), fast(images)
    torch.testing.assert_close(other, one)
    assert len(seen) == 6  # three scales
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
    for logits in (one, other):
        logits.square().mean().backward()
    for p, q in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"backbone": "vgg19"}, "backbone must be one of .*'vgg19'"),
        ({"output_stride": 4}, "output_stride must be one of .*got 4"),
        ({"head": "psp"}, "head must be one of .*'psp'"),
        ({"atrous_rates": ()}, "positive integers"),
        ({"atrous_rates": (6, 2.5)}, "positive integers.*2.5"),
        ({"head": "largefov", "atrous_rates": (6, 12)}, "one atrous rate"),
        ({"scales": ()}, "scales must be .*positive"),
        ({"scales": (1, 0)}, "scales must be .*positive"),
        ({"scales": (-0.5,)}, "scales must be .*positive"),
        ({"scales": (float("nan"),)}, "scales must be .*positive"),
        ({"scales": (90,)}, "scales must be .*positive"),
        ({"scales": (1e300,)}, "scales must be .*positive"),
        ({"scales": (1e-9,)}, "scales must be .*positive"),
        ({"style": "pytorch"}, "style must be one of .*'pytorch'"),
        ({"norm": "group"}, "norm must be one of .*'group'"),
    ],
    ids=str,
)
def test_an_argument_outside_the_list_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        build(**arguments)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0)], ids=str)
def test_scales_of_a_call_are_checked_too(scales):
    with pytest.raises(ValueError, match="scales must be"):
        build()(picture(33, 33), scales=scales)


def test_images_in_0_to_1_are_warned_of_and_right_ones_are_not():
    net = build()
    with pytest.warns(UserWarning, match="0…255"):
        net(torch.rand(1, 3, 33, 33))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(picture(33, 33))


def noise(*shape):
    return torch.randint(0, 256, shape or (2, 3, 5, 7), dtype=torch.uint8)


def test_caffe_subtracts_the_authors_mean_color_from_rgb():
    blue, green, red = 104.008, 116.669, 122.675  # as in the prototxt: B, G, R
    images = noise()
    expected = images.float() - torch.tensor([red, green, blue])[:, None, None]
    torch.testing.assert_close(Preprocess("caffe")(images), expected)


def test_torchvision_normalizes_as_torchvision_does():
    images = noise()
    expected = T.normalize(images / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(Preprocess("torchvision")(images), expected)


@pytest.mark.parametrize("style", ["caffe", "torchvision"])
def test_uint8_and_float_images_give_the_same_float32(style):
    preprocess, images = Preprocess(style), noise()
    assert preprocess(images).dtype == torch.float32
    assert torch.equal(preprocess(images), preprocess(images.float()))


def test_statistics_travel_with_the_weights_and_are_not_trained():
    caffe, other = Preprocess("caffe"), Preprocess("torchvision")
    assert set(caffe.state_dict()) == {"mean", "std"}
    assert not list(caffe.parameters())
    other.load_state_dict(caffe.state_dict())
    images = noise()
    assert torch.equal(other(images), caffe(images))


def test_float_images_in_0_to_1_are_warned_of():
    with pytest.warns(UserWarning, match="no value above 1.*0…255"):
        Preprocess("caffe")(torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize("images", [noise().float() + 2, torch.zeros(1, 3, 4, 4).byte()])
def test_right_images_are_not_warned_of(images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Preprocess("caffe")(images)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 8, 8, 3), (1, 4, 8, 8)], ids=str)
def test_another_shape_is_refused_by_name(shape):
    with pytest.raises(ValueError, match=r"RGB images \(B,3,H,W\)") as error:
        Preprocess("caffe")(noise(*shape))
    assert str(shape) in str(error.value)


def test_an_unknown_style_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="caffe, torchvision, got 'bgr'"):
        Preprocess("bgr")
