"""The exported graph against the network that it was made of, at sizes it has not seen."""

import pytest
import torch
from torch import nn

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.graph import image_graph, largest_difference, smallest_side

MSC = (1.0, 0.75, 0.5)
# an export takes a second for each scale: a copy of the network
ONE, TWO = {"scales": (1,)}, {"scales": (1, 0.5)}
NETWORKS = {
    "one scale": ONE,
    "torchvision": {"style": "torchvision"},
    "caffe": {"style": "caffe"},
    "corners not aligned": {"style": "caffe", "align_corners": False} | TWO,
    "scale 1 not the largest": {"scales": (0.5, 1, 1.25)},
    "no scale 1": {"scales": (0.71, 0.5), "align_corners": False},
    "channels last": {"channels_last": True} | TWO,
    "frozen": {"norm": "frozen"} | ONE,
    "largefov": {"head": "largefov", "atrous_rates": (3,)} | ONE,
    "aspp_concat": {"head": "aspp_concat"} | TWO,
    "resnet18, caffe": {"backbone": "resnet18", "style": "caffe"} | ONE,
    "stride on the 1×1": {"backbone": "resnet50", "style": "caffe"} | ONE,
    "vgg16, caffe": {"backbone": "vgg16", "style": "caffe"} | TWO,
    "vgg16 largefov": {"backbone": "vgg16", "head": "largefov", "atrous_rates": (12,)} | ONE,
}
SIZES = [(1, 33, 33), (2, 64, 50), (1, 97, 160), (3, 51, 200)]


def build(**arguments):
    tiny = {"backbone": "resnet10_quarter", "norm": "batch", "atrous_rates": (1, 2), "scales": MSC}
    return DeepLabV2(5, **(tiny | arguments)).eval()


@pytest.fixture(scope="module")
def exported():
    """(arguments) → network and its graph, each exported once: that takes seconds."""
    pairs = {}

    @torch.no_grad()
    def export(**arguments):
        key = repr(sorted(arguments.items()))
        if key not in pairs:
            torch.manual_seed(0)
            net = build(**arguments)
            pairs[key] = net, image_graph(net)
        return pairs[key]

    return export


def pictures(batch, *size):
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)


@pytest.mark.parametrize("arguments", NETWORKS.values(), ids=NETWORKS.keys())
@torch.no_grad()
def test_the_graph_gives_the_networks_logits_at_any_size(arguments, exported):
    net, program = exported(**arguments)
    graph = program.module()
    for size in SIZES:
        images = pictures(*size)
        logits = graph(images)
        assert logits.shape == (size[0], 5, *size[1:])
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, net(images))


@pytest.mark.parametrize("style", ["torchvision", "caffe"])
@pytest.mark.parametrize(
    ("output_stride", "scales", "expected"), [(8, MSC, 33), (32, (0.5,), 67), (8, (0.1,), 91)]
)
@torch.no_grad()
def test_the_smallest_side_is_the_smallest_that_the_graph_takes(
    output_stride, scales, expected, style, exported
):
    changes = {"output_stride": output_stride, "scales": scales}
    usual = {"output_stride": 8, "scales": MSC}
    changes = {key: value for key, value in changes.items() if value != usual[key]}
    net, program = exported(style=style, **changes)
    assert smallest_side(net) == expected
    graph = program.module()
    images = pictures(1, expected, expected)
    torch.testing.assert_close(graph(images), net(images))
    with pytest.raises((RuntimeError, AssertionError), match=f">= {expected}"):
        graph(pictures(1, expected - 1, expected))


def test_the_graph_is_not_that_of_its_example(exported):
    _, program = exported(style="torchvision")
    sizes = {
        str(dim)
        for node in program.graph.nodes
        if node.op == "output"
        for dim in node.args[0][0].meta["val"].shape
    }
    assert "5" in sizes  # classes
    assert len(sizes) == 4
    assert sum(size.isdigit() for size in sizes) == 1


class Shifted(nn.Module):
    """Logits (B,2,H,W) of −4, or 4 above size 100, and what `error` makes of them."""

    scales, output_stride = (1.0,), 8

    def __init__(self, error=0.0):
        super().__init__()
        self.error = error

    def forward(self, images):
        b, _, h, w = images.shape
        logits = torch.full((b, 2, h, w), 4.0 if h > 100 else -4.0)
        logits[-1, -1, -1, -1] += self.error if h > 100 else 0
        return logits


def test_the_largest_difference_is_relative_and_over_all_sizes():
    assert largest_difference(Shifted(), Shifted()) == 0
    assert largest_difference(Shifted(0.5), Shifted()) == 0.125
    assert largest_difference(Shifted(-1.0), Shifted()) == 0.25


def test_no_number_is_a_difference():
    assert not largest_difference(Shifted(float("nan")), Shifted()) <= 1
