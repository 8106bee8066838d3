"""DeepLabv2's last step: a fully connected CRF sharpens the upsampled probabilities.

DeepLabv2, Sec. 3.3 and 4.1 (arXiv:1606.00915); mean-field inference by Krähenbühl and Koltun
(arXiv:1210.5644).

Letters: B batch · C classes · H×W image.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from deeplab_lit.crf.checks import check_image, check_probabilities
from deeplab_lit.crf.parameters import CRFError, Parameters, is_whole

BACKENDS = ("auto", "native", "torch", "pydensecrf")
Array = np.ndarray | Tensor
Given = TypeVar("Given", np.ndarray, Tensor)
LEAST_PROBABILITY = 1e-5  # before the logarithm, as pydensecrf.utils.unary_from_softmax has it


@dataclass(frozen=True)
class DenseCRF(Parameters):
    """The dense CRF of DeepLabv2: call it with an image and probabilities.

    `DenseCRF(**PRESETS["vgg16"])` has released parameters; the defaults are ResNet-101's. The
    unary is −log of the probabilities, those below 1e-5 counted as 1e-5.

    Memory grows with pixels, classes and the lattice's vertices (0.05 to 3 a pixel in photos):
    beside the input about 1.5 GB for a 1024×2048 photo of 19 classes, whatever the backend.

    Args:
        bi_w: w1 of the paper's Eq. 3, weight of the bilateral (appearance) kernel. 0 leaves it out.
        bi_xy_std: σα, its reach in pixels.
        bi_rgb_std: σβ, its reach in color, in steps of 0…255.
        pos_w: w2, weight of the spatial (smoothness) kernel. 0 leaves it out.
        pos_xy_std: σγ, its reach in pixels.
        iterations: mean-field steps; the paper has 10. 0 gives the input back.
        normalization: "symmetric" divides a message by √(n_i·n_j), n the kernel's sum at a pixel
            (pydensecrf's default); "after" by n_i, as the authors' C++ release does.
        backend: all compute the same. "native" is C++ for CPUs, built when first used; "torch"
            runs anywhere; "pydensecrf" is the reference. "auto" is torch for CUDA tensors, native
            for others. Where native cannot be built, torch takes over with a warning.
        threads: CPU threads of one call of the native backend; None: as many as torch has. To
            refine many images, use `threads=1` in as many Python threads as there are cores.
    """

    backend: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backend not in BACKENDS:
            raise CRFError(f"backend must be one of {BACKENDS}, got {self.backend!r}")
        if self.threads is not None and not (is_whole(self.threads) and self.threads >= 1):
            raise CRFError(f"threads must be 1 or more, or None, got {self.threads}")

    def check_installed(self) -> None:
        """Refuse a backend that was asked for by name and cannot be imported.

        Raises:
            CRFError: pydensecrf is not installed.
        """
        if self.backend == "pydensecrf":
            from deeplab_lit.crf.pydensecrf_backend import import_pydensecrf

            import_pydensecrf()

    def backend_for(self, device: torch.device | str = "cpu") -> str:
        """The backend that refines probabilities of this device: native, torch or pydensecrf."""
        if self.backend in ("torch", "pydensecrf"):
            return self.backend
        if self.backend == "auto" and torch.device(device).type != "cpu":
            return "torch"
        return _native_or_torch()

    def stays_on(self, device: torch.device | str) -> bool:
        """Whether probabilities of this device, a GPU, are refined there and not on the CPU."""
        return torch.device(device).type != "cpu" and self.backend_for(device) == "torch"

    def __call__(self, image: Array, probabilities: Given) -> Given:
        """Refined probabilities, of the kind given: an array, or a tensor on the same device.

        Args:
            image: (H,W,3) uint8, raw RGB, or a batch (B,H,W,3).
            probabilities: (C,H,W) or (B,C,H,W), floating-point, 0…1, summing to 1 over C.

        Returns:
            float32 of the same shape; the classes of a pixel sum to 1.

        Raises:
            CRFError: the input is something else, or the backend is not installed.
        """
        given = _tensor("probabilities", probabilities)
        pixels = _tensor("image", image).to(given.device)
        check_image(pixels)
        check_probabilities(given, pixels)
        b, (c, h, w) = len(given) if given.ndim == 4 else 1, given.shape[-3:]
        unary = (
            given.detach().float().reshape(b, c, h * w).clamp(LEAST_PROBABILITY, 1).log_().neg_()
        )
        backend = _module(self.backend_for(given.device))
        refined = backend.refine(pixels.reshape(b, h, w, 3), unary, self, self.threads)
        refined = refined.reshape(given.shape)
        return refined.numpy() if isinstance(probabilities, np.ndarray) else refined


def _tensor(name: str, x: np.ndarray | Tensor) -> Tensor:
    if isinstance(x, Tensor):
        return x
    if not isinstance(x, np.ndarray):
        raise CRFError(f"{name} must be a NumPy array or a tensor, got {type(x).__name__}")
    if x.dtype.kind not in "uif" or x.dtype.itemsize > 8:
        raise CRFError(f"{name} must hold numbers, got {x.shape} {x.dtype}")
    return torch.from_numpy(np.array(x, order="C", copy=None if x.flags.writeable else True))


def _module(backend: str) -> ModuleType:
    """The module with the backend's `refine`, imported when first used."""
    if backend == "native":
        from deeplab_lit.crf import native as module
    elif backend == "torch":
        from deeplab_lit.crf import mean_field as module
    else:
        from deeplab_lit.crf import pydensecrf_backend as module
    return module


@lru_cache(maxsize=1)
def _native_or_torch() -> str:
    from deeplab_lit.crf.build import BuildError, compiled

    try:
        compiled()
    except BuildError as error:
        warnings.warn(
            f"the fast CRF cannot be built here ({error}): the torch backend takes over, same "
            "results, about half the speed",
            stacklevel=4,
        )
        return "torch"
    return "native"
