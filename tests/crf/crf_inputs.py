from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def scores_like_a_network(num_classes, size, seed=0, sharpness=12.0):
    """(C,H,W) float32 probabilities: noise at stride 8, blurred, upsampled, through a softmax."""
    h, w = size
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, num_classes, h // 8 + 1, w // 8 + 1, generator=generator)
    coarse = F.avg_pool2d(coarse, 3, 1, 1) * sharpness
    return F.interpolate(coarse, size=size, mode="bilinear").softmax(1)[0].numpy()


def random_image(size, seed=0, kind="blobs"):
    """(H,W,3) uint8: pure noise, or blobs of noise."""
    h, w = size
    generator = torch.Generator().manual_seed(seed)
    if kind == "noise":
        return torch.randint(0, 256, (h, w, 3), generator=generator, dtype=torch.uint8).numpy()
    coarse = torch.rand(1, 3, h // 10 + 1, w // 10 + 1, generator=generator) * 255
    smooth = F.interpolate(coarse, size=size, mode="bicubic")[0].permute(1, 2, 0)
    return (smooth + 2 * torch.randn(h, w, 3, generator=generator)).clamp(0, 255).byte().numpy()


def photo(relative, size):
    """The middle of a real image, or a skip with the reason."""
    from PIL import Image

    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"{path} is not here")
    image = np.array(Image.open(path).convert("RGB"))
    h, w = size
    top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
    return np.ascontiguousarray(image[top : top + h, left : left + w])


def native_or_skip():
    from deeplab_lit.crf.build import BuildError, compiled

    try:
        compiled()
    except BuildError as error:
        pytest.skip(f"native.cpp cannot be built here: {error}")
