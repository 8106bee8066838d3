"""Large images in overlapping windows of one size.

DeepLabv2, Sec. 4.4: Cityscapes images are split "into overlapped regions", since a whole one does
not fit into memory. How large they are and how they are merged is not said; here logits are
averaged where windows overlap.

Letters: B batch · C classes · H×W image.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Blend = Literal["flat", "gaussian"]


def sliding_window(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    window: tuple[int, int],
    *,
    overlap: float,
    blend: Blend,
    window_batch: int,
) -> Tensor:
    """Return the logits of images, computed from overlapping windows of them.

    An image that a window covers goes through the network as it is: the result is equal to the
    bit. Beside the network's own memory it takes that of the result and of one batch of windows.

    Args:
        network: images to logits (·,C,·,·) of the same size.
        images: (B,3,H,W).
        window: height and width in pixels; what is larger than the image is cut to it.
        overlap: least share of a window that its neighbor covers too, 0 ≤ overlap < 1.
        blend: weight of a window's pixels: "flat", or "gaussian", which falls from 1 in the middle
            with a deviation of an eighth of the window.
        window_batch: windows that go through the network at once.

    Returns:
        (B,C,H,W).
    """
    height, width = images.shape[-2:]
    rows, columns = windows_of((height, width), window, overlap)
    if len(rows) == len(columns) == 1:
        return network(images)
    h, w = min(window[0], height), min(window[1], width)
    weight = _weight(h, blend).outer(_weight(w, blend)).to(images.device)
    weights = weight.new_zeros(height, width)
    for y in rows:
        for x in columns:
            weights[y : y + h, x : x + w] += weight
    places = [(i, y, x) for i in range(len(images)) for y in rows for x in columns]
    total = torch.empty(0)  # until the first logits say how many classes there are
    for start in range(0, len(places), window_batch):
        batch = places[start : start + window_batch]
        crops = torch.stack([images[i, :, y : y + h, x : x + w] for i, y, x in batch])
        for (i, y, x), logits in zip(batch, network(crops), strict=True):
            if not len(total):
                total = logits.new_zeros(len(images), len(logits), height, width)
            total[i, :, y : y + h, x : x + w] += weight * logits
    return total.div_(weights)


def windows_of(
    size: Sequence[int], window: Sequence[int], overlap: float
) -> tuple[list[int], list[int]]:
    """Return where windows begin: as few as the overlap allows, evenly spread.

    Args:
        size: height and width of the image.
        window: as for `sliding_window`.
        overlap: as for `sliding_window`.

    Returns:
        Their upper edges, and their left edges, in pixels.
    """
    rows, columns = (_starts(n, min(k, n), overlap) for n, k in zip(size, window, strict=True))
    return rows, columns


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Return where windows begin along one side."""
    step = max(window * (1 - overlap), 1)
    number = math.ceil((length - window) / step - 1e-9) + 1
    return [round(i * (length - window) / max(number - 1, 1)) for i in range(number)]


def _weight(length: int, blend: Blend) -> Tensor:
    """Return the weight (length,) of a window's pixels along one side."""
    if blend == "flat":
        return torch.ones(length)
    from_middle = torch.arange(length) - (length - 1) / 2
    return torch.exp(-0.5 * (from_middle / (length / 8)) ** 2)
