"""Costs of networks, against counts by hand and the published convention's."""

import pytest
import torch

from deeplab_lit.network.cost import cost_of
from deeplab_lit.network.deeplab import DeepLabV2


def cost(size, num_classes=19, **settings):
    with torch.device("meta"):
        net = DeepLabV2(num_classes, **{"scales": (1.0,), "style": "caffe"} | settings)
    return cost_of(net, size)


# ResNet-101 for Cityscapes' 19 classes: multiply-adds of all convolutions, worked out by formula
@pytest.mark.parametrize(
    ("size", "settings", "macs"),
    [
        ((512, 1024), {}, 373_656_133_632),
        ((512, 1024), {"atrous_rates": (6, 12)}, 367_783_145_472),
        ((512, 1024), {"style": "torchvision"}, 365_969_801_216),
        ((1024, 2048), {}, pytest.approx(1477.597e9, abs=5e5)),
        ((720, 1280), {}, pytest.approx(652.934e9, abs=5e5)),
        ((321, 321), {}, pytest.approx(74.888e9, abs=5e5)),
        ((513, 513), {}, pytest.approx(188.263e9, abs=5e5)),
    ],
)
def test_deeplabv2_has_the_multiply_adds_of_its_convolutions(size, settings, macs):
    assert cost(size, **settings).macs == macs


def test_normalization_counts_as_parameters_frozen_or_not():
    frozen, trained = cost((33, 33)), cost((33, 33), norm="batch")
    assert frozen.parameters == trained.parameters == trained.learnable == 43_901_068
    assert frozen.learnable == 43_901_068 - 105_344
    affine = cost((33, 33), norm="frozen_affine")
    assert affine == frozen
    assert cost((33, 33), atrous_rates=(6, 12)).parameters == 43_200_614


def test_the_auxiliary_head_costs_in_training_alone():
    both = cost((512, 1024), aux_head=True)
    assert both.macs == 373_656_133_632
    assert both.macs_with_aux == pytest.approx(379.529e9, abs=5e5)
    assert both.parameters == 44_601_560
    assert cost((33, 33)).macs_with_aux is None


TINY = {"backbone": "resnet10_quarter", "head": "conv1x1", "atrous_rates": (), "norm": "batch"}


def by_hand(stem, pooled, cells):
    """Multiply-adds of a tiny network of 7 classes, at so many positions of each part."""
    return (
        stem * 16 * 3 * 49
        + pooled * 2 * 16 * 16 * 9
        + cells * (9 * (16 * 32 + 32 * 32) + 16 * 32)  # a block: two 3×3, and a 1×1 beside them
        + cells * (9 * (32 * 64 + 64 * 64) + 32 * 64)
        + cells * (9 * (64 * 128 + 128 * 128) + 64 * 128)
        + cells * 128 * 7
    )


def test_a_tiny_network_is_counted_as_by_hand():
    assert cost((33, 65), 7, **TINY).macs == by_hand(17 * 33, 9 * 17, 5 * 9)


def test_all_scales_are_counted():
    assert cost((33, 33), 7, **TINY, scales=(1.0, 0.5)).macs == (
        by_hand(17 * 17, 9 * 9, 5 * 5) + by_hand(9 * 9, 5 * 5, 3 * 3)
    )


def test_the_network_stays_where_it_is_and_as_it_is():
    net = DeepLabV2(7, **TINY, scales=(1.0,)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    cost_of(net, (33, 33))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
