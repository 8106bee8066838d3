from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.inference import (
    DeviceError,
    Inference,
    device_of,
    resample,
    sliding_window,
    windows_of,
)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = DeepLabV2(3, backbone="resnet10_quarter", atrous_rates=(1, 2), scales=(1.0, 0.5)).eval()
    torch.nn.init.normal_(net.head.branches[0].weight, std=0.5)
    return net


@pytest.fixture
def images():
    return torch.randint(256, (2, 3, 65, 81), dtype=torch.uint8)


def views(net, images, scales):
    """Probabilities of each view, plain torch."""
    for scale in scales:
        size = [int((n - 1) * scale) + 1 for n in images.shape[-2:]]
        for turn in (lambda x: x, lambda x: torch.flip(x, [3])):
            view = F.interpolate(images.float(), size, mode="bilinear", align_corners=True)
            logits = turn(net(turn(view)))
            logits = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=True)
            yield logits.exp() / logits.exp().sum(1, keepdim=True)


@torch.inference_mode()
def test_without_options_it_is_the_network_to_the_bit(net, images):
    assert Inference()(net, images).equal(net(images))
    assert Inference(scales=(0.75,))(net, images).equal(net(images, (0.75,)))
    assert Inference(window=(65, 100))(net, images).equal(net(images))
    assert Inference(tta_scales=(1.0,))(net, images).equal(net(images))


@torch.inference_mode()
@pytest.mark.parametrize("fuse", ["mean", "max"])
def test_views_are_fused_as_probabilities(net, images, fuse):
    stacked = torch.stack(list(views(net, images, (0.75, 1.0, 1.25))))
    expected = stacked.mean(0) if fuse == "mean" else stacked.amax(0)
    expected = expected / expected.sum(1, keepdim=True)
    found = Inference(flip=True, tta_scales=(0.75, 1.0, 1.25), fuse=fuse)(net, images)
    torch.testing.assert_close(found.softmax(1), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_mirror_image_gets_the_mirrored_answer(net, images):
    inference = Inference(flip=True)
    found, mirrored = (inference(net, x).softmax(1) for x in (images, images.flip(3)))
    torch.testing.assert_close(mirrored.flip(3), found)
    plain = (net(x).softmax(1) for x in (images, images.flip(3)))
    assert not torch.allclose(next(plain), next(plain).flip(3), atol=1e-4)


@torch.inference_mode()
def test_views_go_through_windows(net, images):
    found = Inference(flip=True, window=48, overlap=0.5)(net, images)
    windows = Inference(window=48, overlap=0.5)
    both = windows(net, images).softmax(1) + windows(net, images.flip(3)).flip(3).softmax(1)
    torch.testing.assert_close(found.softmax(1), both / 2)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("options", "size", "passes", "pixels"),
    [
        ({}, (65, 81), 2, 1.25),  # the network's own scales 1 and ½
        ({"scales": (1.0,)}, (65, 81), 1, 1),
        ({"scales": (1.0,), "flip": True}, (65, 81), 2, 2),
        ({"scales": (1.0,), "window": (1024, 1281), "overlap": 0.4}, (1024, 2048), 2, 1.251),
        ({"tta_scales": (0.5, 1.0), "flip": True}, (65, 81), 8, None),
        ({"window": 48, "overlap": 0.0, "flip": True}, (65, 81), 16, None),
    ],
)
def test_the_cost_is_what_really_runs(net, monkeypatch, options, size, passes, pixels):
    inference, seen = Inference(**options), []
    dense = DeepLabV2._dense
    monkeypatch.setattr(
        DeepLabV2, "_dense", lambda self, x: seen.append(x.shape) or dense(self, x[..., :65, :65])
    )
    found = inference.cost(net, size)
    assert found[0] == passes
    if pixels is not None:
        assert found[1] == pytest.approx(pixels, abs=1e-3)
    if size == (65, 81):
        inference(net, torch.randint(256, (1, 3, *size), dtype=torch.uint8))
        assert len(seen) == passes
        ran = sum(h * w for _, _, h, w in seen) / (size[0] * size[1])
        assert ran == pytest.approx(found[1], rel=0.05)  # sizes are whole pixels
    assert f"{passes} passes" in inference.in_words(net, size) or passes == 1


def pillows(images, size, name):
    """Images (B,3,H,W) uint8, resized one after the other by Pillow."""
    resampling = getattr(Image.Resampling, name.upper())
    pictures = (Image.fromarray(x.permute(1, 2, 0).numpy()) for x in images)
    arrays = [np.asarray(x.resize((size[1], size[0]), resampling)) for x in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("resampling", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    "size", [(32, 64), (45, 77), (64, 128), (128, 256), (64, 100), (33, 128), (80, 140)]
)
def test_images_are_resized_as_pillow_does_it_within_a_gray_level(size, resampling):
    hard = np.kron(np.random.default_rng(0).integers(0, 2, (13, 26, 3)), np.ones((5, 5, 1)))
    smooth = torch.randint(256, (3, 64, 128), dtype=torch.uint8)
    images = torch.stack([smooth, torch.tensor(hard[:64, :128] * 255).byte().permute(2, 0, 1)])
    expected = pillows(images, size, resampling).int()
    for given in (images, images.float()):
        found = resample(given, size, resampling)
        assert found.dtype == given.dtype
        assert (found.int() - expected).abs().max() <= 1
    assert (resample(images, size, resampling).int() != expected).float().mean() < 0.05


@torch.inference_mode()
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5)])
@pytest.mark.parametrize("resampling", ["bicubic", "bilinear"])
def test_the_network_sees_another_size_and_its_logits_come_back(net, images, scales, resampling):
    """AdaptSegNet's order: PIL's resize, the network, one bilinear step from grid to image."""
    small = pillows(images, (33, 49), resampling)
    grid = net.logits(small, scales).fused
    expected = F.interpolate(grid, images.shape[-2:], mode="bilinear", align_corners=True)
    inference = Inference(scales, resize=(33, 49), resize_filter=resampling)
    found = inference(net, images)
    assert found.shape == (2, 3, 65, 81)
    torch.testing.assert_close(found, expected, atol=0.05 * expected.std().item(), rtol=0)
    assert Inference(scales, resize=(65, 81))(net, images).equal(net(images, scales))
    wide = Inference(scales, resize=(33, 49), resize_filter=resampling, window=100)
    assert wide(net, images).equal(found)


@torch.inference_mode()
def test_windows_and_views_are_of_the_resized_image(net, images):
    small = resample(images, (40, 70), "bicubic")
    for options in (
        {"window": 33, "overlap": 0.5},
        {"flip": True, "tta_scales": (0.75, 1.25)},
        {"flip": True, "window": 40},
    ):
        found = Inference(resize=(40, 70), **options)(net, images).softmax(1)
        expected = Inference(**options)(net, small)
        assert found.shape == (2, 3, 65, 81)
        seen_back = F.interpolate(found, (40, 70), mode="bilinear", align_corners=True)
        assert (seen_back.argmax(1) == expected.argmax(1)).float().mean() > 0.9


def test_the_cost_and_the_records_know_the_size_that_is_seen(net):
    inference = Inference(scales=(1.0,), resize=(512, 1024))
    assert inference.cost(net, (1024, 2048)) == (1, 0.25)
    assert inference.in_words(net, (1024, 2048)) == (
        "1 pass through the network for an image of 2048×1024 seen at 1024×512, "
        "0.25 times its pixels"
    )
    assert inference.settings(net) == {
        "scales": [1.0],
        "resize": [512, 1024],
        "resize_filter": "bicubic",
    }
    assert "resize_filter" not in Inference(resize_filter="bilinear").settings(net)


def test_records_hold_the_options_that_do_something(net):
    assert Inference(overlap=0.5, fuse="max").settings(net) == {"scales": [1.0, 0.5]}
    assert Inference(window=65, flip=True).settings(net) == {
        "scales": [1.0, 0.5],
        "window": [65, 65],
        "overlap": 0.25,
        "blend": "flat",
        "flip": True,
        "fuse": "mean",
    }


@pytest.mark.parametrize(
    "options",
    [
        {"scales": ()},
        {"tta_scales": (0.0,)},
        {"window": 0},
        {"window": (65, -1)},
        {"overlap": 1.0},
        {"overlap": -0.1},
        {"window_batch": 0},
        {"resize": (32, 64)},
        {"resize": (64, 10**6)},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options)).removeprefix("tta_")):
        Inference(**options)


def test_auto_is_the_accelerator_where_there_is_one_and_else_the_cpu(monkeypatch):
    for there, expected in ((torch.device("cuda"), "cuda"), (None, "cpu")):
        accelerator = lambda check_available, there=there: there  # noqa: E731
        monkeypatch.setattr(torch.accelerator, "current_accelerator", accelerator)
        assert device_of("auto").type == expected


def test_a_device_is_taken_by_its_name():
    assert device_of("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["toaster", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_by_its_name(name):
    with pytest.raises(DeviceError, match=f"--device {name}: ."):
        device_of(name)


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
def one_scale():
    torch.manual_seed(0)
    net = DeepLabV2(3, backbone="resnet10_quarter", atrous_rates=(1, 2), scales=(1.0,)).eval()
    torch.nn.init.normal_(net.head.branches[0].weight, std=0.5)
    return net


@pytest.mark.parametrize("blend", ["flat", "gaussian"])
@pytest.mark.parametrize("window_batch", [1, 3])
def test_logits_are_those_of_a_slow_average(one_scale, blend, window_batch):
    images = torch.randint(256, (2, 3, 90, 75), dtype=torch.uint8)
    options = {"window": (48, 40), "overlap": 0.3, "blend": blend}
    with torch.inference_mode():
        found = sliding_window(one_scale, images, **options, window_batch=window_batch)
        for one, image in zip(found, images, strict=True):
            expected = slow(one_scale, image[None], **options)
            np.testing.assert_allclose(one.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("blend", ["flat", "gaussian"])
@pytest.mark.parametrize("window", [(65, 49), (1000, 49), (65, 50)])
def test_a_window_that_covers_the_image_changes_no_bit(one_scale, blend, window):
    images = torch.randint(256, (2, 3, 65, 49), dtype=torch.uint8)
    with torch.inference_mode():
        found = sliding_window(one_scale, images, window, overlap=0.5, blend=blend, window_batch=1)
        assert found.equal(one_scale(images))


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
