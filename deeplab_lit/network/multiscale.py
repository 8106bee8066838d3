"""Multi-scale inputs (MSC): one network on a resized image, shared weights, the maximum response.

DeepLabv2, Sec. 3.2: "extract DCNN score maps from multiple (three in our experiments) rescaled
versions of the original image using parallel DCNN branches that share the same parameters ...
bilinearly interpolate the feature maps from the parallel DCNN branches to the original image
resolution and fuse them, by taking at each position the maximum response across the different
scales. We do this both during training and testing." The released train.prototxt scores each scale
and the maximum.

Letters: B batch · C classes · H×W image · h×w grid of the largest scale.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_SCALE, LARGEST_SCALE = 0.01, 8


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
    """Run a network on the images at each scale, and fuse its logits by maximum.

    Args:
        network: images (B,3,H,W) → logits on its own coarse grid.
        images: (B,3,H,W), float, preprocessed.
        scales: sizes relative to the image, in any order.
        align_corners: the convention of every resize; Caffe's Interp has True.
    """
    coarse = [network(x) for x in at_scales(images, scales, align_corners=align_corners)]
    return fuse(coarse, scales, align_corners=align_corners)


def at_scales(
    images: Tensor, scales: tuple[float, ...], *, align_corners: bool
) -> Iterator[Tensor]:
    """Yield the images (B,3,H,W) at each scale, as `multiscale_logits` takes them."""
    for scale in scales:
        size = scaled_size(images.shape[-2:], scale, align_corners=align_corners)
        yield images if scale == 1 else resize(images, size, align_corners=align_corners)


def fuse(
    coarse: Sequence[Tensor], scales: tuple[float, ...], *, align_corners: bool
) -> ScaleLogits:
    """Fuse the logits of each scale (B,C,·,·), each on its own grid, by maximum."""
    largest = coarse[scales.index(max(scales))]
    upsampled = [
        x if x is largest else resize(x, largest.shape[-2:], align_corners=align_corners)
        for x in coarse
    ]
    fused = upsampled[0]
    for logits in upsampled[1:]:
        fused = torch.maximum(fused, logits)
    scored = [
        on_its_grid if (1 / scale).is_integer() else on_the_largest
        for scale, on_its_grid, on_the_largest in zip(scales, coarse, upsampled, strict=True)
    ]
    return ScaleLogits(fused, scored)


def check_scales(scales: Iterable[float]) -> tuple[float, ...]:
    """Return scales as a tuple of floats.

    Raises:
        ValueError: there is none, or one that is not in 0.01…8.
    """
    scales = tuple(float(scale) for scale in scales)
    if not scales or not all(SMALLEST_SCALE <= scale <= LARGEST_SCALE for scale in scales):
        raise ValueError(
            f"scales must be one or more positive numbers in {SMALLEST_SCALE}…{LARGEST_SCALE}, "
            f"got {list(scales)}"
        )
    return scales


def scaled_size(size: Sequence[int], scale: float, *, align_corners: bool) -> tuple[int, int]:
    """Return height and width of an image at a scale.

    With aligned corners the distance between the outer pixels' centers is scaled, as in Caffe's
    Interp: 321 → 241 → 161 at 1, 0.75, 0.5.

    Args:
        size: height and width.
        scale: relative to the image.
        align_corners: the convention of the resize.
    """
    # the fraction that was meant (0.29, in binary a little less, is 29/100): integer arithmetic is
    # exact, and torch.export can carry it for sizes that it does not know
    part, whole = Fraction(scale).limit_denominator(10**6).as_integer_ratio()
    height, width = size
    if align_corners:
        return (height - 1) * part // whole + 1, (width - 1) * part // whole + 1
    return max(height * part // whole, 1), max(width * part // whole, 1)


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Resize x (B,D,·,·) bilinearly to (B,D,*size); return x itself where it has that size."""
    # an exported graph serves all sizes, so it must not depend on whether two happen to be equal
    if not torch.compiler.is_exporting() and tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)
