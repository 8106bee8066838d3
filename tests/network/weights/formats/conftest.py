"""Random weights of the big networks, made once."""

import pytest
import torch
from source_networks import random_resnet101


@pytest.fixture(scope="session")
def resnet101():
    """ResNet-101 with ASPP by Caffe's names, 21 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return random_resnet101()


@pytest.fixture
def photo():
    """(height, width) → (1,3,H,W) uint8 RGB: smooth, as photographs are, with some noise."""

    def make(height, width):
        coarse = torch.rand(1, 3, 6, 7) * 255
        image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
        return (image + torch.randn_like(image) * 8).clamp(0, 255).to(torch.uint8)

    return make


@pytest.fixture
def close():
    """(ours, theirs): the largest difference is below 1e-5 of the largest value."""

    def check(ours, theirs):
        assert ours.shape == theirs.shape
        spread = theirs.std()
        assert 1e-3 < spread < 1e4  # the random network has something to say
        error = float((ours - theirs).abs().max() / theirs.abs().max())
        assert error < 1e-5, error

    return check
