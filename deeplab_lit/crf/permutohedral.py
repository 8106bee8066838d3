"""Gaussian filtering in d dimensions on the permutohedral lattice, in plain torch operations.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010), as
the dense CRF of Krähenbühl and Koltun (arXiv:1210.5644) uses it: every pixel adds its value to the
D vertices of the simplex around it (splat), vertices are blurred along the D directions, and every
pixel reads its D vertices again (slice). Each of the three is a sum of weighted rows, so each is
`embedding_bag`: no custom kernel, the same lines on CPU and GPU, any number of images at once.

`native.cpp` shares the places of pixels and the keys of vertices. They are rounded as pydensecrf
rounds: every step is one float32 operation, so that no compiler can contract two of them.

Letters: N pixels of all images · C values a pixel · d features a pixel (2: x, y; 5: and r, g, b) ·
D = d + 1 · M vertices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, floor, prod, sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from deeplab_lit.crf.parameters import CRFError

MARGIN = 4  # cells by which vertices and their neighbors may leave the box of the pixels


@dataclass(frozen=True)
class KeyLayout:
    """The packing of D−1 lattice coordinates and a remainder into one integer.

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
    number = partial(torch.full, (), dtype=torch.float32, device=images.device)
    # by a tensor: by a Python number torch multiplies on a GPU with its reciprocal, a bit off
    rows = torch.arange(h, dtype=torch.float32, device=images.device) / number(xy_std)
    columns = torch.arange(w, dtype=torch.float32, device=images.device) / number(xy_std)
    xy = [columns.expand(b, h, w).reshape(1, -1), rows[:, None].expand(b, h, w).reshape(1, -1)]
    if rgb_std is None:
        return torch.cat(xy)
    return torch.cat([*xy, images.reshape(-1, 3).T.float() / number(rgb_std)])


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


class Lattice:
    """A lattice with the pixels' places in it, ready to filter values.

    Args:
        elevated: (D,N) float32, the pixels on the lattice's hyperplane.
        layout: how vertices become integers.
        images: how many images the N pixels are, one after the other; they share no vertex.
        weight: factor of the result.
        normalization: "symmetric" or "after", see `Parameters`.
    """

    def __init__(
        self,
        elevated: Tensor,
        layout: KeyLayout,
        *,
        images: int = 1,
        weight: float = 1.0,
        normalization: str = "symmetric",
    ) -> None:
        num_corners, num_pixels = elevated.shape
        keys, barycentric = enclosing_simplex(elevated, layout)
        image = torch.arange(images, device=keys.device) * layout.size
        keys += image.repeat_interleave(num_pixels // images)

        # equal keys become one run, a run one vertex; row M of a table stays 0: "no vertex there"
        keys, order = keys.flatten().sort(stable=True)
        self.vertices, run, count = keys.unique_consecutive(return_inverse=True, return_counts=True)
        self.num_vertices = len(self.vertices)
        ends = count.cumsum(0)
        self.splat_bags = torch.cat([ends.new_zeros(1), ends, ends[-1:]]).int()
        self.splat_pixels = (order % num_pixels).int()
        rows = torch.empty_like(run, dtype=torch.int32).scatter_(0, order, run.int())
        self.slice_rows = rows.view(num_corners, num_pixels).T.contiguous()
        self.splat_weights = barycentric.flatten()[order]
        self.slice_weights = barycentric.T / (1 + 0.5 ** (num_corners - 1))
        self.neighbors = self._find_neighbors(layout)
        self.blur_weights = elevated.new_tensor([1, 0.5, 0.5]).repeat(self.num_vertices + 1, 1)

        self.norm = self.filter(elevated.new_ones(num_pixels, 1))[:, 0] + 1e-20  # the kernel's sum
        before, after = 1 / self.norm.sqrt(), 1 / self.norm.sqrt()
        if normalization == "after":
            before, after = torch.ones_like(self.norm), 1 / self.norm
        self.splat_weights *= before[self.splat_pixels]
        self.slice_weights = (self.slice_weights * (weight * after)[:, None]).contiguous()

    def filter(self, values: Tensor) -> Tensor:
        """Blur values: (N,C) float32 → (N,C)."""
        table = F.embedding_bag(
            self.splat_pixels,
            values,
            self.splat_bags,
            mode="sum",
            per_sample_weights=self.splat_weights,
            include_last_offset=True,
        )
        for rows in self.neighbors:
            table = _sum_rows(table, rows, self.blur_weights)
        return _sum_rows(table, self.slice_rows, self.slice_weights)

    def _find_neighbors(self, layout: KeyLayout) -> list[Tensor]:
        """Return for each direction rows (M+1,3): the vertex itself, one step forth, one step back.

        A step along direction j takes 1 off every coordinate and adds D to the j-th; from
        remainder 0 it wraps around to remainder d.
        """
        d = len(layout.stride) - 1
        wraps = (self.vertices % layout.size) < layout.phase
        base = self.vertices + torch.where(
            wraps, d * layout.phase - sum(layout.stride), -layout.phase
        )
        missing = self.num_vertices
        itself = torch.arange(missing + 1, dtype=torch.int32, device=base.device)
        neighbors = []
        for stride in layout.stride:
            key = base + stride
            forth = torch.searchsorted(self.vertices, key, out_int32=True).clamp_(max=missing - 1)
            exists = self.vertices[forth] == key
            rows = torch.full((missing + 1, 3), missing, dtype=torch.int32, device=base.device)
            rows[:, 0] = itself
            rows[:-1, 1] = torch.where(exists, forth, missing)
            # where none exists the write goes to the last row, which is mended after it
            rows[:, 2].scatter_(0, rows[:-1, 1].long(), itself[:-1])
            rows[-1, 2] = missing
            neighbors.append(rows)
        return neighbors


def enclosing_simplex(elevated: Tensor, layout: KeyLayout) -> tuple[Tensor, Tensor]:
    """Return keys (D,N) int64 and barycentric weights (D,N) float32 of each point's vertices."""
    num_corners = len(elevated)
    d = num_corners - 1
    cell = (elevated * (1 / num_corners)).round()
    rest = elevated - cell * num_corners
    # rank of each coordinate by falling distance to the nearest vertex of remainder 0
    rank = cell.sum(0).expand_as(cell).clone()
    for i in range(num_corners):
        for j in range(i + 1, num_corners):
            less = (rest[i] < rest[j]).float()
            rank[i] += less
            rank[j] += 1 - less
    # that vertex may lie off the hyperplane: bring it back where the ranks say so
    shift = (rank < 0).float() - (rank > d).float()
    cell += shift
    rank = (rank + shift * num_corners).long()

    place = (elevated - cell * num_corners) * (1 / num_corners)
    falling = torch.empty_like(place).scatter_(0, d - rank, place)
    barycentric = falling.clone()
    barycentric[1:] -= falling[:-1]
    barycentric[0] += 1 - falling[d]

    stride = torch.tensor(layout.stride, device=elevated.device)[:, None]
    low = torch.tensor(layout.low, device=elevated.device)[:, None]
    keys = torch.empty_like(rank)
    keys[0] = ((cell.long() - low) * stride).sum(0)
    # from corner to corner the coordinate of the highest rank left steps back by one cell
    steps = torch.empty_like(rank).scatter_(0, d - rank, stride.expand_as(rank))
    keys[1:] = keys[0] + layout.phase * torch.arange(1, num_corners, device=keys.device)[:, None]
    keys[1:] -= steps[:-1].cumsum(0)
    return keys, barycentric


def _sum_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Sum K weighted rows of the table (·,C) for each of (R,K) rows → (R,C)."""
    return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)
