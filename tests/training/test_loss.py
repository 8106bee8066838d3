import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.multiscale import ScaleLogits
from deeplab_lit.training.loss import cross_entropy, deeplab_loss, subsample

SCALES = (1.0, 0.75, 0.5)


def slow_loss(logits, mask, step):
    """Mean over every `step`-th pixel that is not void, pixel by pixel."""
    terms = []
    for image, truth in zip(logits, mask, strict=True):
        for i, j in np.ndindex(image.shape[1:]):
            label = int(truth[step * i, step * j])
            if label != 255:
                x = [float(v) for v in image[:, i, j]]
                terms.append(math.log(sum(math.exp(v) for v in x)) - x[label])
    return sum(terms) / len(terms)


def slow_upsample(logits, cells):
    """Bilinear with aligned corners: (C,h,h) → (C,cells,cells), cell by cell."""
    small = logits.shape[-1]
    out = np.empty((len(logits), cells, cells))
    for i, j in np.ndindex(cells, cells):
        y, x = i * (small - 1) / (cells - 1), j * (small - 1) / (cells - 1)
        top, left = min(int(y), small - 2), min(int(x), small - 2)
        a, b = y - top, x - left
        window = logits[:, top : top + 2, left : left + 2]
        out[:, i, j] = np.einsum("cij,i,j", window, [1 - a, a], [1 - b, b])
    return out


def checkerboard(size, classes=5):
    return torch.arange(size * size).reshape(1, size, size).remainder(classes).to(torch.uint8)


@pytest.fixture(scope="module")
def scored():
    """Losses of a real network at three scales, and each term worked out on its own."""
    torch.manual_seed(0)
    options = {"backbone": "resnet10_quarter", "norm": "batch", "atrous_rates": (2, 4)}
    net = DeepLabV2(5, scales=SCALES, **options).eval()
    for conv in net.head.branches:  # logits far apart, so that no term looks like another
        torch.nn.init.normal_(conv.weight, std=0.5)
    images = torch.randint(0, 256, (2, 3, 65, 65)).float()
    mask = torch.randint(0, 5, (2, 65, 65), dtype=torch.uint8)
    mask[torch.rand(mask.shape) < 0.2] = 255
    with torch.no_grad():
        maps = []
        for side in (65, 49, 33):  # 64 · scale + 1
            x = F.interpolate(
                net.preprocess(images), (side, side), mode="bilinear", align_corners=True
            )
            maps.append(net.head(net.backbone(x)).double().numpy())
        full, _, half = maps
        assert [m.shape[-1] for m in maps] == [9, 7, 5]
        large = [full, *(np.stack([slow_upsample(x, 9) for x in m]) for m in maps[1:])]
        terms = [
            slow_loss(full, mask, 8),
            slow_loss(large[1], mask, 8),  # 0.75 has no grid of whole steps
            slow_loss(half, mask, 16),
            slow_loss(np.maximum.reduce(large), mask, 8),
        ]
        return net, net.logits(images), mask, terms


@pytest.mark.parametrize("term", range(3), ids=map(str, SCALES))
def test_each_scale_is_scored_where_the_authors_score_it(scored, term):
    _, logits, mask, terms = scored
    alone = ScaleLogits(logits.at_scales[term], [logits.at_scales[term]])
    assert deeplab_loss(alone, mask, align_corners=True).item() == pytest.approx(
        terms[term], rel=1e-5
    )


def test_loss_is_the_sum_of_all_scales_and_their_maximum(scored):
    _, logits, mask, terms = scored
    assert len({round(term, 3) for term in terms}) == 4
    loss = deeplab_loss(logits, mask, align_corners=True)
    assert loss.item() == pytest.approx(sum(terms), rel=1e-5)


def test_a_single_scale_gives_a_single_term():
    logits = torch.zeros(1, 4, 3, 3)
    loss = deeplab_loss(ScaleLogits(logits, [logits]), checkerboard(17, 4), align_corners=True)
    assert loss.item() == pytest.approx(math.log(4))


def test_a_cross_entropy_worked_out_by_hand():
    logits = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]])  # 2 classes on 1×2 pixels
    target = torch.tensor([[[1, 0]]])
    expected = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    assert cross_entropy(logits, target).item() == pytest.approx(expected)


def test_void_never_counts():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    target = torch.tensor([[[0, 255], [255, 2]]], dtype=torch.uint8)
    loss = cross_entropy(logits, target)
    loss.backward()
    log_p = logits.detach().log_softmax(1)
    assert loss.item() == pytest.approx(-(log_p[0, 0, 0, 0] + log_p[0, 2, 1, 1]).item() / 2)
    assert not logits.grad[0, :, 0, 1].any()
    assert not logits.grad[0, :, 1, 0].any()
    assert logits.grad[0, :, 0, 0].all()


def test_nothing_but_void_gives_zero_and_zero_gradients():
    logits = [torch.randn(2, 3, n, n, requires_grad=True) for n in (5, 5, 3, 5)]
    mask = torch.full((2, 33, 33), 255, dtype=torch.uint8)
    loss = deeplab_loss(ScaleLogits(logits[3], logits[:3]), mask, align_corners=True)
    loss.backward()
    assert loss.item() == 0
    assert all((x.grad == 0).all() for x in logits)


def test_half_precision_logits_are_scored_in_float32():
    logits = torch.randn(1, 3, 5, 5).bfloat16()
    loss = cross_entropy(logits, checkerboard(5, 3))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(cross_entropy(logits.double(), checkerboard(5, 3)).item())


@pytest.mark.parametrize(("size", "cells", "step"), [(321, 41, 8), (321, 21, 16), (65, 9, 8)])
def test_aligned_corners_take_every_8th_pixel(size, cells, step):
    mask = torch.randint(0, 256, (2, size, size), dtype=torch.uint8)
    found = subsample(mask, (cells, cells), align_corners=True)
    assert found.equal(mask[:, ::step, ::step])


def test_between_two_pixels_the_nearest_counts():
    mask = torch.arange(6).reshape(1, 6, 1)  # centers at 0, 1⅔, 3⅓, 5
    assert subsample(mask, (4, 1), align_corners=True).flatten().tolist() == [0, 2, 3, 5]


def test_without_aligned_corners_the_centers_of_the_cells_count():
    mask = torch.arange(16).reshape(1, 1, 16).expand(1, 8, 16)
    assert subsample(mask, (1, 4), align_corners=False).tolist() == [[[2, 6, 10, 14]]]
    column = torch.arange(9).reshape(1, 9, 1)
    assert subsample(column, (3, 1), align_corners=False).flatten().tolist() == [1, 4, 7]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(41, 33), (7, 5), (1, 1)])
def test_labels_are_never_mixed(size, align_corners):
    mask = torch.tensor([0, 20, 255], dtype=torch.uint8)[torch.randint(0, 3, (1, 83, 97))]
    found = subsample(mask, size, align_corners=align_corners)
    assert found.shape == (1, *size)
    assert set(found.unique().tolist()) <= {0, 20, 255}


def test_a_loss_of_ones_own_waits_for_the_device_once_a_step(monkeypatch):
    waits = []
    for name in ("__bool__", "tolist", "item"):
        method = getattr(torch.Tensor, name)
        counted = lambda self, method=method: waits.append(1) or method(self)  # noqa: E731
        monkeypatch.setattr(torch.Tensor, name, counted)
    maps = [torch.zeros(1, 2, n, n, requires_grad=True) for n in (3, 5, 9)]
    mask = torch.zeros(1, 65, 65, dtype=torch.uint8)
    loss = torch.nn.CrossEntropyLoss(ignore_index=255)
    total = deeplab_loss(ScaleLogits(maps[2], maps), mask, loss, align_corners=True)
    assert len(waits) == 1
    assert total.detach().numpy() == pytest.approx(4 * math.log(2))


def corner_to_corner(logits, height, width):
    """Bilinear with aligned corners, at any size: by two matrices of weights."""

    def weights(cells, pixels):
        matrix = np.zeros((pixels, cells))
        for i in range(pixels):
            y = i * (cells - 1) / (pixels - 1)
            matrix[i, int(y)] += 1 - y % 1
            matrix[i, min(int(y) + 1, cells - 1)] += y % 1
        return matrix

    rows, columns = weights(logits.shape[-2], height), weights(logits.shape[-1], width)
    return np.einsum("yh,xw,bchw->bcyx", rows, columns, logits)


def test_logits_at_the_labels_size_are_scored_on_every_labeled_pixel():
    """What AdaptSegNet and its descendants train with: each scale, and the maximum, in full."""
    maps = [torch.randn(2, 3, *size) * 3 for size in ((5, 4), (5, 4), (3, 2), (5, 4))]
    mask = torch.randint(0, 3, (2, 33, 25), dtype=torch.uint8)
    mask[torch.rand(mask.shape) < 0.2] = 255
    expected = 0
    for logits in maps:
        full = corner_to_corner(logits.double().numpy(), 33, 25)
        log_p = full - np.log(np.exp(full).sum(1, keepdims=True))
        truth = mask.numpy()
        labeled = [
            log_p[b, truth[b, y, x], y, x]
            for b, y, x in np.ndindex(truth.shape)
            if truth[b, y, x] != 255
        ]
        expected -= np.mean(labeled)
    logits = ScaleLogits(maps[3], maps[:3])
    found = deeplab_loss(logits, mask, align_corners=True, size="image")
    assert found.item() == pytest.approx(expected, rel=1e-5)
    own = torch.nn.CrossEntropyLoss(ignore_index=255)
    for align_corners in (True, False):
        ours, theirs = (
            deeplab_loss(logits, mask, loss, align_corners=align_corners, size="image")
            for loss in (None, own)
        )
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert theirs.item() != pytest.approx(expected, rel=1e-3)


def test_a_mask_of_void_gives_zero_at_its_size_too():
    logits = torch.randn(1, 3, 5, 5, requires_grad=True)
    mask = torch.full((1, 33, 33), 255, dtype=torch.uint8)
    for loss in (None, torch.nn.CrossEntropyLoss(ignore_index=255)):
        value = deeplab_loss(
            ScaleLogits(logits, [logits]), mask, loss, align_corners=True, size="image"
        )
        value.backward()
        assert value.item() == 0
        assert not logits.grad.any()


def test_logits_in_half_precision_are_enlarged_in_float32():
    logits = torch.randn(1, 3, 5, 5)
    mask = checkerboard(33, 3)
    exact, half = (
        deeplab_loss(ScaleLogits(x, [x]), mask, align_corners=True, size="image")
        for x in (logits.bfloat16().float(), logits.bfloat16())
    )
    assert half.dtype == torch.float32
    assert half.equal(exact)


def test_at_the_labels_size_one_map_a_scale_waits_for_the_backward_pass():
    maps = [torch.randn(2, 19, 9, 17, requires_grad=True) for _ in range(4)]
    mask = torch.randint(0, 19, (2, 65, 129), dtype=torch.uint8)
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        deeplab_loss(ScaleLogits(maps[3], maps[:3]), mask, align_corners=True, size="image")
    map_bytes = 4 * 19 * mask.numel()
    target_bytes = 8 * mask.numel()  # one for all scales
    assert 4 * map_bytes <= sum(kept.values()) <= 4 * map_bytes + target_bytes + 1000


def test_an_unknown_size_is_refused(make_module):
    with pytest.raises(ValueError, match="loss_size must be one of grid, image, got 'full'"):
        make_module(loss_size="full")
