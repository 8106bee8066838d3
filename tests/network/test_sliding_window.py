from itertools import pairwise

import numpy as np
import pytest
import torch

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.sliding_window import sliding_window, windows_of


def slow(network, image, window, overlap, blend):
    """One window after the other, one pixel of the average after the other."""
    height, width = image.shape[-2:]
    total, weights = 0, np.zeros((height, width))
    rows, columns = windows_of((height, width), window, overlap)
    for y in rows:
        for x in columns:
            h, w = min(window[0], height), min(window[1], width)
            logits = np.zeros((network(image[..., :h, :w]).shape[1], height, width))
            logits[:, y : y + h, x : x + w] = network(image[..., y : y + h, x : x + w])[0]
            weight = np.zeros((height, width))
            for i in range(h):
                for j in range(w):
                    d = ((i - (h - 1) / 2) / (h / 8)) ** 2 + ((j - (w - 1) / 2) / (w / 8)) ** 2
                    weight[y + i, x + j] = 1 if blend == "flat" else np.exp(-d / 2)
            total, weights = total + weight * logits, weights + weight
    return total / weights


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = DeepLabV2(3, backbone="resnet10_quarter", atrous_rates=(1, 2), scales=(1.0,)).eval()
    torch.nn.init.normal_(net.head.branches[0].weight, std=0.5)
    return net


@pytest.mark.parametrize("blend", ["flat", "gaussian"])
@pytest.mark.parametrize("window_batch", [1, 3])
def test_logits_are_those_of_a_slow_average(net, blend, window_batch):
    images = torch.randint(256, (2, 3, 90, 75), dtype=torch.uint8)
    options = {"window": (48, 40), "overlap": 0.3, "blend": blend}
    with torch.inference_mode():
        found = sliding_window(net, images, **options, window_batch=window_batch)
        for one, image in zip(found, images, strict=True):
            expected = slow(net, image[None], **options)
            np.testing.assert_allclose(one.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("blend", ["flat", "gaussian"])
@pytest.mark.parametrize("window", [(65, 49), (1000, 49), (65, 50)])
def test_a_window_that_covers_the_image_changes_no_bit(net, blend, window):
    images = torch.randint(256, (2, 3, 65, 49), dtype=torch.uint8)
    with torch.inference_mode():
        found = sliding_window(net, images, window, overlap=0.5, blend=blend, window_batch=1)
        assert found.equal(net(images))


@pytest.mark.parametrize("blend", ["flat", "gaussian"])
def test_windows_of_a_network_without_context_are_the_whole_image(blend):
    """What looks at one pixel at a time cannot tell windows from the image."""
    images = torch.rand(1, 3, 70, 101) * 255
    found = sliding_window(
        lambda x: x.sin(), images, (33, 40), overlap=0.25, blend=blend, window_batch=4
    )
    torch.testing.assert_close(found, images.sin())


@pytest.mark.parametrize(
    ("size", "window", "overlap", "rows", "columns"),
    [
        ((1024, 2048), (1024, 1281), 0.4, [0], [0, 767]),  # two halves that share 514 columns
        ((1024, 2048), (513, 513), 0.0, [0, 511], [0, 512, 1023, 1535]),
        ((100, 100), (50, 50), 0.0, [0, 50], [0, 50]),
        ((100, 100), (50, 50), 0.5, [0, 25, 50], [0, 25, 50]),
        ((30, 100), (50, 200), 0.5, [0], [0]),
        ((51, 50), (50, 50), 0.9, [0, 1], [0]),
    ],
)
def test_windows_worked_out_by_hand(size, window, overlap, rows, columns):
    assert windows_of(size, window, overlap) == (rows, columns)


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 0.9])
def test_windows_cover_everything_and_overlap_enough(overlap):
    for length in range(40, 200, 7):
        starts, _ = windows_of((length, 40), (40, 40), overlap)
        assert starts[0] == 0
        assert starts[-1] == length - 40
        assert all(b - a <= 40 * (1 - overlap) + 1 for a, b in pairwise(starts))
