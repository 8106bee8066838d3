"""Features of frozen layers on disk: never another image's or network's, whatever has changed."""

import pytest
import torch
from torch import nn

from deeplab_lit.network.backbone import build_backbone
from deeplab_lit.network.feature_cache import FeatureCache, feature_shape, frozen_first

IMAGES = torch.arange(2 * 3 * 33 * 41, dtype=torch.float32).reshape(2, 3, 33, 41) % 97 - 40


@pytest.fixture
def net():
    return build_backbone("resnet10_quarter", 8, "torchvision", "frozen").eval()


@pytest.fixture
def layers(net):
    return list(net.parts())[:3]


def number(cache):
    return len(list(cache.folder.glob("*.pt")))


def runs_of(layer):
    """A list that grows by the shape of each input that goes through a layer."""
    seen = []
    layer.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0].shape))
    return seen


def test_features_are_those_of_the_layers_and_are_computed_once(layers, tmp_path):
    seen, cache = runs_of(layers[0]), FeatureCache(tmp_path / "new" / "folder", layers)
    expected = torch.cat([nn.Sequential(*layers)(image).detach() for image in IMAGES.split(1)])
    seen.clear()
    for _ in range(2):
        assert torch.equal(cache(IMAGES), expected)
    assert len(seen) == 2  # images, one by one
    alone = cache(IMAGES[1:])
    assert torch.equal(alone, cache(IMAGES)[1:])
    assert torch.equal(FeatureCache(tmp_path / "new" / "folder", layers)(IMAGES[1:]), alone)
    assert len(seen) == 2
    assert number(cache) == 2
    assert not alone.requires_grad


def change_a_weight(layers):
    next(layers[0].parameters()).data[0, 0, 0, 0] += 1e-3


def change_a_statistic(layers):
    next(layers[2].buffers())[0] += 1e-3


def change_a_rate(layers):
    for module in layers[2].modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (5, 5)


def change_a_setting_that_is_not_shown(layers):
    layers[0].slope = 0.1


@pytest.mark.parametrize(
    "change",
    [change_a_weight, change_a_statistic, change_a_rate, change_a_setting_that_is_not_shown],
)
def test_other_layers_have_other_features(layers, tmp_path, change):
    FeatureCache(tmp_path, layers)(IMAGES)
    change(layers)
    cache = FeatureCache(tmp_path, layers)
    assert number(cache) == 0
    torch.testing.assert_close(cache(IMAGES[:1]), nn.Sequential(*layers)(IMAGES[:1]).detach())


def test_an_image_that_differs_in_one_value_or_in_its_shape_has_other_features(layers, tmp_path):
    cache = FeatureCache(tmp_path, layers)
    other = IMAGES[:1].clone()
    other[0, 2, 32, 40] += 1
    assert cache.path(other) != cache.path(IMAGES[:1])
    assert cache.path(IMAGES[:1].reshape(1, 3, 41, 33)) != cache.path(IMAGES[:1])
    assert cache.path(IMAGES[:1].clone().contiguous(memory_format=torch.channels_last)) == (
        cache.path(IMAGES[:1])
    )


def test_each_precision_has_its_features(layers, tmp_path):
    cache = FeatureCache(tmp_path, layers)
    exact = cache(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        expected = nn.Sequential(*layers)(IMAGES[:1]).detach()
        assert torch.equal(cache(IMAGES)[:1], expected)
        assert torch.equal(cache(IMAGES)[:1], expected)
    assert torch.equal(cache(IMAGES), exact)
    assert number(cache) == 4


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", None])
def test_a_damaged_file_is_computed_anew(layers, tmp_path, content):
    cache = FeatureCache(tmp_path, layers)
    expected, path = cache(IMAGES[:1]), cache.path(IMAGES[:1])
    whole = path.read_bytes()
    if content is None:  # one byte in the middle of the numbers
        content = whole[:2000] + bytes([whole[2000] ^ 255]) + whole[2001:]
    path.write_bytes(content)
    assert torch.equal(cache(IMAGES[:1]), expected)
    assert torch.equal(torch.load(path, weights_only=True), expected)


@pytest.mark.parametrize(
    ("norm", "frozen", "number"),
    [
        ("frozen", ["conv1"], 1),
        ("frozen", ["conv1", "layer1"], 2),
        ("frozen", ["layer1"], 0),  # the stem learns
        ("batch", ["conv1", "layer1"], 0),  # so do its statistics
        ("batch", ["conv1", "bn1", "layer1", "layer2"], 3),
        ("frozen_affine", ["conv1", "layer1"], 0),  # statistics follow the batches
        ("frozen", [], 0),
    ],
)
def test_parts_count_as_frozen_up_to_the_first_that_changes(norm, frozen, number):
    net = build_backbone("resnet10_quarter", 8, "torchvision", norm)
    parts = [getattr(net, name).requires_grad_(False) for name in frozen]
    assert len(frozen_first(net.parts(), parts)) == number


def test_a_part_with_dropout_that_is_on_is_not_frozen():
    drop = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))
    assert len(frozen_first([nn.ReLU(), drop], [])) == 1
    assert len(frozen_first([nn.ReLU(), drop], [drop])) == 2


@pytest.mark.parametrize("size", [(33, 41), (64, 48)])
def test_the_shape_of_features_is_known_beforehand(layers, size):
    expected = nn.Sequential(*layers)(torch.zeros(1, 3, *size)).shape[1:]
    assert feature_shape(layers, *size) == tuple(expected)


def test_the_mode_of_the_layers_is_no_part_of_their_name(layers, tmp_path):
    """A training that goes on may find them in another one when it begins."""
    folder = FeatureCache(tmp_path, layers).folder
    for layer in layers:
        layer.train()
    assert FeatureCache(tmp_path, layers).folder == folder
