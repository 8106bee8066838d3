"""The `native` backend: calls `native.cpp`, which `build.py` compiles on first use.

The GIL is released while it works, so images can be refined in as many Python threads as there are
cores; that is faster than many threads on one image. Up to 256 MB of memory are kept for the next
image, and the spatial lattices of the four latest sizes.

Letters: B images · C classes · N = H·W.
"""

import ctypes
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from threading import Lock

import torch
from torch import Tensor

from deeplab_lit.crf.build import compiled
from deeplab_lit.crf.parameters import CRFError, Parameters
from deeplab_lit.crf.permutohedral import KeyLayout, elevate, features, key_layout

BUILDING = Lock()
MAX_CLASSES = 256  # the widest row that native.cpp is compiled for


class NativeLattice:
    """A lattice in the library's memory, freed with this object. Arguments: see `Lattice`."""

    def __init__(self, elevated: Tensor, layout: KeyLayout, threads: int) -> None:
        num_corners, num_pixels = elevated.shape
        longs = ctypes.c_int64 * num_corners
        library = compiled()
        self.handle = library.lattice_new(
            elevated.contiguous().data_ptr(),
            num_pixels,
            num_corners,
            longs(*layout.low),
            longs(*layout.stride),
            layout.phase,
            threads,
        )
        if not self.handle:
            raise MemoryError(f"no memory for a CRF lattice of {num_pixels} pixels")
        weakref.finalize(self, library.lattice_free, self.handle)


@torch.no_grad()
def refine(images: Tensor, unary: Tensor, parameters: Parameters, threads: int | None) -> Tensor:
    """Refine: images (B,H,W,3) uint8, unary (B,C,N) energies → probabilities (B,C,N) float32.

    Images of a batch are refined side by side, then threads help inside an image. With the same
    number of threads an image gets the same bits; another number changes them by about 1e-6.

    Args:
        images: on any device, as is `unary`; the work is done on the CPU.
        unary: −log of the probabilities.
        parameters: of the pairwise terms.
        threads: in all; None: as many as torch has.

    Raises:
        BuildError: the library cannot be built here.
        CRFError: more than 256 classes, or kernels too fine for the lattice's keys.
        MemoryError: not enough for the lattices or the mean field.
    """
    threads = threads or torch.get_num_threads()
    side_by_side = min(threads, len(images))
    one = partial(_refine_one, parameters=parameters, threads=threads // side_by_side)
    energies = unary.cpu().contiguous()
    refined = torch.empty_like(energies)
    if side_by_side == 1:
        list(map(one, images.cpu(), energies, refined))
    else:
        with ThreadPoolExecutor(side_by_side) as pool:
            list(pool.map(one, images.cpu(), energies, refined))
    return refined.to(unary.device)


def _refine_one(
    image: Tensor, unary: Tensor, refined: Tensor, parameters: Parameters, threads: int
) -> None:
    """Refine an image (H,W,3) with unary (C,N) energies; write into `refined` (C,N)."""
    p, size = parameters, tuple(image.shape[:2])
    lattices, weights = [], []
    if p.pos_w:
        with BUILDING:  # or threads that start together each build one
            lattices.append(_position_lattice(size, p.pos_xy_std, threads))
        weights.append(p.pos_w)
    if p.bi_w:
        lattices.append(bilateral_lattice(image, p, threads))
        weights.append(p.bi_w)
    if not lattices:
        torch.softmax(-unary, 0, out=refined)
        return
    count = len(lattices)
    failed = compiled().mean_field(
        unary.data_ptr(),
        refined.data_ptr(),
        len(unary),
        (ctypes.c_void_p * count)(*(lattice.handle for lattice in lattices)),
        (ctypes.c_float * count)(*weights),
        count,
        p.iterations,
        p.normalization == "symmetric",
    )
    if failed == 1:
        raise CRFError(
            f"the native CRF takes at most {MAX_CLASSES} classes, got {len(unary)}: "
            "choose backend='torch'"
        )
    if failed:
        raise MemoryError(f"no memory for a CRF of {len(unary)} classes on {size[0]}×{size[1]}")


def bilateral_lattice(image: Tensor, parameters: Parameters, threads: int) -> NativeLattice:
    """Build the lattice of the appearance kernel: image (H,W,3) uint8."""
    p = parameters
    return NativeLattice(
        elevate(features(image[None], p.bi_xy_std, p.bi_rgb_std)),
        key_layout(image.shape[:2], p.bi_xy_std, p.bi_rgb_std),
        threads,
    )


@lru_cache(maxsize=4)  # pixels' colors play no part: one for all images of a size
def _position_lattice(size: tuple[int, int], std: float, threads: int) -> NativeLattice:
    image = torch.empty((1, *size, 3), dtype=torch.uint8)
    return NativeLattice(elevate(features(image, std, None)), key_layout(size, std, None), threads)
