"""The plain port is the same network: what it is timed for is what ours computes."""

import pytest
import torch

from deeplab_lit.benchmark.plain_port import plain_loss, port_of, why_no_port
from deeplab_lit.network.backbone import FrozenBatchNorm2d
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.training.loss import deeplab_loss

CASES = {
    "as released": {"backbone": "resnet50", "style": "caffe"},
    "torchvision's": {"backbone": "resnet50", "scales": (1.0,), "output_stride": 16},
    "basic blocks": {"backbone": "resnet18", "head": "largefov", "atrous_rates": (12,)},
    "tiny, trained": {"backbone": "resnet10_quarter", "norm": "batch", "scales": (0.5, 1.0, 0.6)},
    "two stages": {"backbone": "resnet6_half", "head": "conv1x1", "atrous_rates": ()},
    "affine": {"backbone": "resnet10_quarter", "norm": "frozen_affine", "output_stride": 32},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_the_port_has_our_loss_and_our_gradients(settings):
    torch.manual_seed(0)
    net = DeepLabV2(5, **settings).train()
    for module in net.modules():
        if isinstance(module, FrozenBatchNorm2d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    images = torch.randint(256, (2, 3, 33, 25), dtype=torch.uint8)
    mask = torch.randint(5, (2, 33, 25), dtype=torch.uint8)
    mask[:, 5:15] = 255
    port = port_of(net)
    before = {name: value.clone() for name, value in port.state_dict().items()}
    theirs = plain_loss(port(net.preprocess(images)), mask.long())
    theirs.backward()
    ours = deeplab_loss(net.logits(images), mask, align_corners=True)
    ours.backward()
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-6)
    gradients = dict(net.named_parameters())
    trained = {name: p for name, p in port.named_parameters() if p.requires_grad}
    assert len(trained) == sum(p.requires_grad for p in gradients.values())
    for name, p in trained.items():
        stage, _, rest = name.removeprefix("layers.").partition(".")
        name = f"layer{int(stage) + 1}.{rest}" if name.startswith("layers.") else name
        name = f"head.{name.replace('aspp', 'branches')}" if "aspp" in name else f"backbone.{name}"
        torch.testing.assert_close(p.grad, gradients[name].grad, rtol=1e-4, atol=1e-6)
    moved = [n for n, v in port.state_dict().items() if not torch.equal(v, before[n])]
    assert all("running" in name or "tracked" in name for name in moved)
    assert bool(moved) == (settings.get("norm", "frozen") != "frozen")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"backbone": "vgg16"}, "the backbone vgg16"),
        ({"head": "aspp_concat"}, "the head aspp_concat"),
        ({"align_corners": False}, "align_corners false"),
        ({"aux_head": True}, "an auxiliary head"),
        ({}, None),
    ],
)
def test_what_has_no_port_is_named(settings, reason):
    with torch.device("meta"):
        net = DeepLabV2(3, **{"backbone": "resnet10_quarter", "norm": "batch"} | settings)
    assert why_no_port(net) == reason
