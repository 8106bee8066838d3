"""The `torch` backend: mean-field inference in plain torch, batched, on CPU and GPU.

Krähenbühl and Koltun (arXiv:1210.5644), Algorithm 1, with the Potts model. As in their code a
pixel's message includes the pixel itself.

Letters: B images · C classes · N = H·W.
"""

from functools import lru_cache
from threading import Lock

import torch
from torch import Tensor

from deeplab_lit.crf.parameters import Parameters
from deeplab_lit.crf.permutohedral import Lattice, elevate, features, key_layout

BUILDING = Lock()


@torch.no_grad()
def refine(images: Tensor, unary: Tensor, parameters: Parameters, threads: int | None) -> Tensor:
    """Refine: images (B,H,W,3) uint8, unary (B,C,N) energies → probabilities (B,C,N) float32.

    `threads` is not used: torch has its own setting for the whole process.
    """
    lattices = []
    if parameters.pos_w:
        with BUILDING:  # or threads that start together each build one
            lattices.append(_position_lattice(parameters, images.shape[:3], images.device))
    if parameters.bi_w:
        lattices.append(bilateral_lattice(images, parameters))
    b, c, n = unary.shape
    rows = unary.transpose(1, 2).contiguous().view(b * n, c)
    q = mean_field(rows, lattices, parameters.iterations)
    return q.view(b, n, c).transpose(1, 2).contiguous()


def mean_field(unary: Tensor, lattices: list[Lattice], iterations: int) -> Tensor:
    """Repeat Q ← softmax(−unary + Σ filtered Q): unary (B·N,C) → Q (B·N,C)."""
    scores = -unary
    q = torch.softmax(scores, 1)
    for _ in range(iterations):  # in place: fresh memory would cost as much as the arithmetic
        torch.neg(unary, out=scores)
        for lattice in lattices:
            scores += lattice.filter(q)
        torch.softmax(scores, 1, out=q)
    return q


def bilateral_lattice(images: Tensor, parameters: Parameters) -> Lattice:
    """Build the lattice of the appearance kernel: images (B,H,W,3) uint8."""
    p = parameters
    points = features(images, p.bi_xy_std, p.bi_rgb_std)
    return Lattice(
        elevate(points),
        key_layout(images.shape[1:3], p.bi_xy_std, p.bi_rgb_std),
        images=len(images),
        weight=p.bi_w,
        normalization=p.normalization,
    )


@lru_cache(maxsize=2)  # pixels' colors play no part: one for all images of a size
def _cached(
    size: tuple[int, int, int], std: float, weight: float, normalization: str, device: torch.device
) -> Lattice:
    images = torch.empty((*size, 3), dtype=torch.uint8, device=device)
    return Lattice(
        elevate(features(images, std, None)),
        key_layout(size[1:], std, None),
        images=size[0],
        weight=weight,
        normalization=normalization,
    )


def _position_lattice(p: Parameters, size: torch.Size, device: torch.device) -> Lattice:
    return _cached(tuple(size), p.pos_xy_std, p.pos_w, p.normalization, device)
