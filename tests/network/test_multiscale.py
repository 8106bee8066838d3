"""Multi-scale inputs against a slow implementation with its own bilinear interpolation."""

from decimal import Decimal

import numpy as np
import pytest
import torch
from torch import nn

from deeplab_lit.network.multiscale import multiscale_logits, resize, scaled_size

# (65, 41) at each scale, by hand
SIZES = {
    True: {0.5: (33, 21), 0.75: (49, 31), 1.0: (65, 41), 1.25: (81, 51), 1.5: (97, 61)},
    False: {0.5: (32, 20), 0.75: (48, 30), 1.0: (65, 41), 1.25: (81, 51), 1.5: (97, 61)},
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, 2, 1)).double()


def bilinear(x, size, align_corners):
    """Separable linear interpolation, by numpy."""
    maps = []
    for n, m in zip(x.shape[-2:], size, strict=True):
        if align_corners:
            at = np.linspace(0, n - 1, m)
        else:
            at = ((np.arange(m) + 0.5) * n / m - 0.5).clip(0, n - 1)
        maps.append(np.stack([np.interp(at, np.arange(n), unit) for unit in np.eye(n)], axis=1))
    return torch.from_numpy(maps[0] @ x.detach().numpy() @ maps[1].T)


def slow(net, images, scales, align_corners):
    """Each scale's own logits, those on the largest grid, and the maximum."""
    sizes = SIZES[align_corners]
    own = [net(bilinear(images, sizes[s], align_corners)) for s in scales]
    grid = own[scales.index(max(scales))].shape[-2:]
    up = [bilinear(logits, grid, align_corners) for logits in own]
    fused = np.empty(up[0].shape)
    for index in np.ndindex(fused.shape):
        fused[index] = max(float(logits[index]) for logits in up)
    return own, up, torch.from_numpy(fused)


SCALES = [(1.0, 0.75, 0.5), (0.5, 1.0), (0.75, 1.25), (0.5, 1.0, 1.5), (0.5,)]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("scales", SCALES, ids=str)
def test_fused_is_the_maximum_over_scales_on_the_largest_grid(scales, align_corners):
    net, images = network(), torch.randn(2, 3, 65, 41, dtype=torch.float64)
    own, up, expected = slow(net, images, scales, align_corners)
    fused, at_scales = multiscale_logits(net, images, scales, align_corners=align_corners)
    torch.testing.assert_close(fused, expected)
    if len(scales) > 1:  # the maximum is no single scale's
        assert not any(torch.allclose(fused, logits) for logits in up)
    assert len(at_scales) == len(scales)
    for scale, logits, at_own, at_grid in zip(scales, at_scales, own, up, strict=True):
        torch.testing.assert_close(logits, at_own if scale in (1.0, 0.5) else at_grid)


def test_authors_scales_are_scored_on_the_authors_grids():
    net = nn.Conv2d(3, 2, 1, stride=8)
    fused, at_scales = multiscale_logits(
        net, torch.randn(1, 3, 321, 321), (1.0, 0.75, 0.5), align_corners=True
    )
    assert fused.shape[-2:] == (41, 41)
    assert [x.shape[-2:] for x in at_scales] == [(41, 41), (41, 41), (21, 21)]


def test_order_of_scales_does_not_matter_to_the_maximum():
    net, images = network(), torch.randn(1, 3, 65, 41, dtype=torch.float64)
    one = multiscale_logits(net, images, (1.0, 0.75, 0.5), align_corners=True)
    other = multiscale_logits(net, images, (0.5, 1.0, 0.75), align_corners=True)
    assert torch.equal(one.fused, other.fused)
    for i, j in enumerate((1, 2, 0)):
        assert torch.equal(one.at_scales[i], other.at_scales[j])


@pytest.mark.parametrize("align_corners", [True, False])
def test_scale_one_alone_is_the_plain_network(align_corners):
    net, images = network(), torch.randn(2, 3, 33, 50, dtype=torch.float64)
    fused, at_scales = multiscale_logits(net, images, (1.0,), align_corners=align_corners)
    assert torch.equal(fused, net(images))
    assert torch.equal(at_scales[0], net(images))


def test_every_scale_sends_gradient_to_the_shared_weights():
    net, images = network(), torch.randn(1, 3, 65, 41, dtype=torch.float64)
    for i in range(3):
        net.zero_grad()
        out = multiscale_logits(net, images, (1.0, 0.75, 0.5), align_corners=True)
        out.at_scales[i].sum().backward()
        assert all(p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        *((321, s, n) for s, n in ((1.0, 321), (0.75, 241), (0.5, 161), (1.25, 401), (1.5, 481))),
        *((513, s, n) for s, n in ((0.75, 385), (0.5, 257))),
        *((505, s, n) for s, n in ((0.75, 379), (0.5, 253))),
        (101, 0.29, 30),  # 100 · 0.29 is a little below 29 in floating point
        (33, 0.01, 1),
    ],
)
def test_aligned_sizes_are_those_of_caffes_interp(size, scale, expected):
    assert scaled_size((size, 1), scale, align_corners=True) == (expected, 1)


@pytest.mark.parametrize(
    "scale", ["0.25", "0.29", "0.5", "0.75", "0.333", "1", "1.1", "1.25", "1.5"]
)
def test_sizes_are_those_of_decimal_arithmetic(scale):
    exact = Decimal(scale)
    for n in range(33, 2050):
        aligned, plain = int((n - 1) * exact) + 1, int(n * exact)
        assert scaled_size((n, n), float(scale), align_corners=True) == (aligned, aligned)
        assert scaled_size((n, n), float(scale), align_corners=False) == (plain, plain)


def test_a_third_is_a_third():
    for n in (34, 97, 322, 3001):
        assert scaled_size((n, 1), 1 / 3, align_corners=True) == ((n - 1) // 3 + 1, 1)
        assert scaled_size((n - 1, 3), 2 / 3, align_corners=False) == (2 * (n - 1) // 3, 2)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [(321, 0.75, 240), (321, 0.5, 160), (512, 0.75, 384), (100, 0.29, 29), (33, 0.01, 1)],
)
def test_unaligned_sizes_are_rounded_down(size, scale, expected):
    assert scaled_size((1, size), scale, align_corners=False) == (max(int(scale), 1), expected)


@pytest.mark.parametrize("align_corners", [True, False])
def test_resize_is_bilinear_without_smoothing_and_free_at_the_same_size(align_corners):
    x = torch.randn(2, 3, 9, 14, dtype=torch.float64)
    assert resize(x, (9, 14), align_corners=align_corners) is x
    for size in ((5, 7), (17, 30), (9, 3)):
        expected = bilinear(x, size, align_corners)
        torch.testing.assert_close(resize(x, size, align_corners=align_corners), expected)
