"""Place pixels on the permutohedral lattice's hyperplane; number its vertices.

Shared by the lattices of `permutohedral.py` and `native.cpp`, and rounded as pydensecrf rounds:
every step is one float32 operation, so that no compiler can contract two of them.

Letters: N pixels of all images · d features a pixel (2: x, y; 5: and r, g, b) · D = d + 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, prod, sqrt

import torch
from torch import Tensor

from deeplab_lit.crf.parameters import CRFError

MARGIN = 4  # cells by which vertices and their neighbors may leave the box of the pixels


@dataclass(frozen=True)
class KeyLayout:
    """How D−1 lattice coordinates and a remainder pack into one integer.

    The D coordinates of a vertex sum to 0 and have the same remainder k modulo D; with
    q_i = (c_i − k)/D its key is k·phase + Σ_{i<d} (q_i − low_i)·stride_i.
    """

    low: tuple[int, ...]  # D, the last unused
    stride: tuple[int, ...]  # D, the last 0
    phase: int

    @property
    def size(self) -> int:
        """Return the number of keys: they lie in 0…size−1."""
        return self.phase * len(self.stride)


def features(images: Tensor, xy_std: float, rgb_std: float | None) -> Tensor:
    """Map images (B,H,W,3) uint8 to a point per pixel (d,B·H·W): x, y, with rgb_std also colors."""
    b, h, w, _ = images.shape
    rows = torch.arange(h, dtype=torch.float32, device=images.device) / xy_std
    columns = torch.arange(w, dtype=torch.float32, device=images.device) / xy_std
    xy = [columns.expand(b, h, w).reshape(1, -1), rows[:, None].expand(b, h, w).reshape(1, -1)]
    if rgb_std is None:
        return torch.cat(xy)
    return torch.cat([*xy, images.reshape(-1, 3).T.float() / rgb_std])


def elevate(points: Tensor) -> Tensor:
    """Map points (d,N) → (D,N) on the hyperplane of coordinate sum 0, scaled for the blur."""
    d = len(points)
    elevated = [torch.empty(0)] * (d + 1)
    total = torch.zeros_like(points[0])
    for j, scale in reversed(list(enumerate(_scales(d), start=1))):
        c = points[j - 1] * scale
        elevated[j] = total - j * c
        total = total + c
    elevated[0] = total
    return torch.stack(elevated)


def key_layout(size: Sequence[int], xy_std: float, rgb_std: float | None) -> KeyLayout:
    """Return the packing for every image of one size: features fill a box known beforehand.

    Raises:
        CRFError: 62 bits are too few, which takes standard deviations far below 1.
    """
    h, w = size
    corner = [(w - 1) / xy_std, (h - 1) / xy_std]
    corner += [] if rgb_std is None else [255 / rgb_std] * 3
    d = len(corner)
    reach = [c * s for c, s in zip(corner, _scales(d), strict=True)]
    low: list[int] = []
    stride: list[int] = []
    ranges: list[int] = []
    for i in range(d):  # e_i = Σ_{m≥i} reach_m − i·reach_{i−1}, each term from 0 to its value
        least = -i * reach[i - 1] if i else 0
        low.append(floor(least / (d + 1)) - MARGIN)
        stride.append(prod(ranges))
        ranges.append(ceil(sum(reach[i:]) / (d + 1)) + MARGIN + 1 - low[i])
    layout = KeyLayout((*low, 0), (*stride, 0), prod(ranges))
    if layout.size >= 2**62:
        raise CRFError(
            f"a lattice for {h}×{w} pixels at xy_std {xy_std}, rgb_std {rgb_std} is too fine: "
            "take larger standard deviations"
        )
    return layout


def _scales(d: int) -> list[float]:
    """Return one factor per feature, rounded to float32 as where they are applied."""
    inverse_std = float(torch.tensor(sqrt(2 / 3) * (d + 1), dtype=torch.float32))
    scales = [inverse_std / sqrt((j + 1) * (j + 2)) for j in range(d)]
    return torch.tensor(scales, dtype=torch.float32).tolist()
