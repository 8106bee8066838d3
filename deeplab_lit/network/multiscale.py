"""Multi-scale inputs (MSC): one network on a resized image, shared weights, the maximum response.

DeepLabv2, Sec. 3.2: "extract DCNN score maps from multiple (three in our experiments) rescaled
versions of the original image using parallel DCNN branches that share the same parameters ...
bilinearly interpolate the feature maps from the parallel DCNN branches to the original image
resolution and fuse them, by taking at each position the maximum response across the different
scales. We do this both during training and testing." The released train.prototxt scores each scale
and the maximum.

Letters: B batch · C classes · H×W image · h×w grid of the largest scale.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class ScaleLogits(NamedTuple):
    """Logits of a multi-scale pass.

    Attributes:
        fused: (B,C,h,w), the maximum over scales on the grid of the largest.
        at_scales: one (B,C,·,·) a scale, on the grid where the authors score it: a scale of
            1, ½, ⅓ … on its own, since labels reach it by whole steps; any other on h×w.
    """

    fused: Tensor
    at_scales: list[Tensor]


def multiscale_logits(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: tuple[float, ...],
    *,
    align_corners: bool,
) -> ScaleLogits:
    """Run `network` on the images at each scale and fuse.

    Args:
        network: images (B,3,H,W) → logits on its own coarse grid.
        images: (B,3,H,W), float, preprocessed.
        scales: sizes relative to the image, in any order.
        align_corners: the convention of every resize; Caffe's Interp has True.
    """
    coarse = []
    for scale in scales:
        size = scaled_size(images.shape[-2:], scale, align_corners=align_corners)
        coarse.append(network(resize(images, size, align_corners=align_corners)))
    grid = max(logits.shape[-2:] for logits in coarse)
    upsampled = [resize(logits, grid, align_corners=align_corners) for logits in coarse]
    fused = upsampled[0]
    for logits in upsampled[1:]:
        fused = torch.maximum(fused, logits)
    at_scales = [
        own if (1 / scale).is_integer() else up
        for scale, own, up in zip(scales, coarse, upsampled, strict=True)
    ]
    return ScaleLogits(fused, at_scales)


def scaled_size(size: tuple[int, int], scale: float, *, align_corners: bool) -> tuple[int, int]:
    """Height and width of an image at a scale.

    With aligned corners the distance between the outer pixels' centres is scaled, as in Caffe's
    Interp: 321 → 241 → 161 at 1, 0.75, 0.5.
    """
    if align_corners:
        return tuple(int((n - 1) * scale + 1e-6) + 1 for n in size)
    return tuple(max(int(n * scale + 1e-6), 1) for n in size)


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Bilinear (B,D,·,·) → (B,D,*size); the input itself where the size is already right."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)
