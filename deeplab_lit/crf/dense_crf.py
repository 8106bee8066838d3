"""DeepLabv2's last step: a fully connected CRF sharpens the upsampled probabilities.

DeepLabv2, Sec. 3.3 and 4.1 (arXiv:1606.00915); mean-field inference by Krähenbühl and Koltun
(arXiv:1210.5644).

Letters: B batch · C classes · H×W image.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np
import torch
from PIL.Image import Image as Picture
from torch import Tensor

from deeplab_lit.crf.parameters import NAMES, CRFError, Parameters, is_whole

Backend = Literal["auto", "native", "torch", "pydensecrf"]
Array = np.ndarray | Tensor
ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, Tensor)
LEAST_PROBABILITY = 1e-5  # before the logarithm, as pydensecrf.utils.unary_from_softmax has it
SUM_TOLERANCE = 1e-2  # of a pixel's probabilities; those of float16 are off by up to 5e-3


class Refiner(Protocol):
    """Refine a network's probabilities: `DenseCRF`, or an object of your own with these methods."""

    def __call__(self, image: Array, probabilities: ArrayOrTensor) -> ArrayOrTensor:
        """Return refined probabilities, same kind and shape; called from several threads at once.

        Args:
            image: (H,W,3) uint8 RGB, or a batch (B,H,W,3).
            probabilities: (C,H,W) or (B,C,H,W) float32, 0…1, summing to 1 over C.
        """

    def stays_on(self, device: torch.device | str) -> bool:
        """Return whether batches of tensors on a GPU are taken there; else arrays, one by one."""

    def settings(self, device: torch.device | str) -> dict[str, Any]:
        """Return what the result depends on, as plain values for results.json."""


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

    Raises:
        CRFError: a value out of its range, or pydensecrf is asked for and not installed.
    """

    backend: Backend = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backend not in get_args(Backend):
            raise CRFError(f"backend must be one of {get_args(Backend)}, got {self.backend!r}")
        if self.threads is not None and not (is_whole(self.threads) and self.threads >= 1):
            raise CRFError(f"threads must be 1 or more, or None, got {self.threads}")
        if self.backend == "pydensecrf":
            from deeplab_lit.crf.pydensecrf_backend import import_pydensecrf

            import_pydensecrf()  # refused here, before any work, where it is not installed

    def backend_for(self, device: torch.device | str = "cpu") -> str:
        """Return the backend that refines a device's tensors: native, torch or pydensecrf."""
        if self.backend in ("torch", "pydensecrf"):
            return self.backend
        if self.backend == "auto" and torch.device(device).type != "cpu":
            return "torch"
        return _native_or_torch()

    def stays_on(self, device: torch.device | str) -> bool:
        """Return whether tensors on a GPU are refined there and not on the CPU."""
        return torch.device(device).type != "cpu" and self.backend_for(device) == "torch"

    def settings(self, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Return parameters and the backend that runs on a device, for results.json."""
        values = {name: getattr(self, name) for name in NAMES}
        return values | {"backend": self.backend_for(device)}

    def __call__(self, image: Array, probabilities: ArrayOrTensor) -> ArrayOrTensor:
        """Return refined probabilities: an array for an array, a tensor on a tensor's device.

        Args:
            image: (H,W,3) uint8, raw RGB, or a batch (B,H,W,3).
            probabilities: (C,H,W) or (B,C,H,W), floating-point, 0…1, summing to 1 over C.

        Returns:
            float32 of the same shape; the classes of a pixel sum to 1.

        Raises:
            CRFError: the input is something else.
        """
        scores = _tensor("probabilities", probabilities)
        pixels = _tensor("image", image).to(scores.device)
        _check_image(pixels)
        _check_probabilities(scores, pixels)
        b, (c, h, w) = len(scores) if scores.ndim == 4 else 1, scores.shape[-3:]
        unary = (
            scores.detach().float().reshape(b, c, h * w).clamp(LEAST_PROBABILITY, 1).log_().neg_()
        )
        backend = _module(self.backend_for(scores.device))
        refined: Tensor = backend.refine(pixels.reshape(b, h, w, 3), unary, self, self.threads)
        refined = refined.reshape(scores.shape)
        return refined.numpy() if isinstance(probabilities, np.ndarray) else refined


def _tensor(name: str, x: Array) -> Tensor:
    if isinstance(x, Tensor):
        return x
    if not isinstance(x, np.ndarray):
        hint = " Use np.asarray(image.convert('RGB'))." if isinstance(x, Picture) else ""
        raise CRFError(f"{name} must be a NumPy array or a tensor, got {type(x).__name__}.{hint}")
    if x.dtype.kind not in "uif" or x.dtype.itemsize > 8:
        raise CRFError(f"{name} must hold numbers, got {x.shape} {x.dtype}")
    return torch.from_numpy(np.array(x, order="C", copy=None if x.flags.writeable else True))


def _check_image(image: Tensor) -> None:
    """Refuse what is not (H,W,3) or (B,H,W,3) uint8."""
    got = f"got {_describe(image)}"
    if image.dtype != torch.uint8:
        hint = ""
        if image.is_floating_point() and image.numel():
            low, high = image.min().item(), image.max().item()
            got += f" in {low:.4g}…{high:.4g}"
            if low < 0:
                hint = " It looks normalized: the CRF needs the image before the mean is taken off."
            elif high <= 1:
                hint = " It looks divided by 255: the CRF needs 0…255."
        raise CRFError(f"image must be the raw RGB pixels, uint8; {got}.{hint}")
    if image.ndim not in (3, 4) or image.shape[-1] != 3:
        hint = ""
        if image.ndim in (3, 4) and image.shape[-3] == 3:
            hint = f" It has the channels first: use {_moved('image', -3, -1)}."
        elif image.ndim == 2 or image.shape[-1] in (1, 2, 4):
            hint = " Gray or with transparency? Pillow's image.convert('RGB') makes it RGB."
        raise CRFError(f"image must be (H,W,3), or (B,H,W,3) for a batch; {got}.{hint}")
    if image.numel() == 0:
        raise CRFError(f"image has no pixels; {got}")


def _check_probabilities(probabilities: Tensor, image: Tensor) -> None:
    """Refuse what is not (C,H,W) or (B,C,H,W), of the image's size, 0…1 and summing to 1."""
    got = f"got {_describe(probabilities)}"
    if not probabilities.is_floating_point():
        raise CRFError(
            f"probabilities must be floating-point; {got}. Of a mask, give each pixel's class 0.7, "
            "say, and let the other classes share the rest: what is certain does not move."
        )
    *batch, h, w, _ = image.shape
    if probabilities.ndim != image.ndim or list(probabilities.shape[:-3]) != batch:
        expected = "(C,H,W) with an image (H,W,3), or (B,C,H,W) with (B,H,W,3)"
        raise CRFError(f"probabilities must be {expected}; {got} with {_describe(image)}")
    size = tuple(probabilities.shape[-2:])
    if size != (h, w):
        hint = "Upsample the probabilities to the image's size first."
        if size == (w, h):
            hint = "Height and width are swapped."
        elif tuple(probabilities.shape[-3:-1]) == (h, w):
            hint = f"The classes come last: use {_moved('probabilities', -1, -3)}."
        raise CRFError(f"probabilities must be {h}×{w} as the image is; {got}. {hint}")
    if probabilities.shape[-3] == 0:
        raise CRFError(f"probabilities have no classes; {got}")
    low, high = (x.item() for x in probabilities.aminmax())  # NaN if there is one
    if not (low >= 0 and high <= 1 + SUM_TOLERANCE):
        hint = " They look like logits: take a softmax over the classes."
        if low != low or max(abs(low), abs(high)) == float("inf"):
            hint = " The network or what came after it has overflowed."
        elif low >= 0:
            hint = " Divide scores by their sum over the classes; logits need a softmax."
        raise CRFError(f"probabilities must lie in 0…1; got {low:.4g}…{high:.4g}.{hint}")
    least, most = (x.item() for x in probabilities.sum(-3).aminmax())
    if not (least >= 1 - SUM_TOLERANCE and most <= 1 + SUM_TOLERANCE):
        raise CRFError(
            "the probabilities of a pixel must sum to 1 over the classes; "
            f"got sums of {least:.4g}…{most:.4g}. Divide scores by their sum."
        )


def _moved(name: str, source: int, target: int) -> str:
    """Return how an axis is moved, of an array and of a tensor, as it is typed."""
    axes = f"{source}, {target}"
    return f"np.moveaxis({name}, {axes}), of a tensor {name}.movedim({axes})"


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"


def _module(backend: str) -> ModuleType:
    """Import the module with the backend's `refine`."""
    if backend == "native":
        from deeplab_lit.crf import native

        return native
    if backend == "torch":
        from deeplab_lit.crf import mean_field

        return mean_field
    from deeplab_lit.crf import pydensecrf_backend

    return pydensecrf_backend


@lru_cache(maxsize=1)
def _native_or_torch() -> str:
    from deeplab_lit.crf.build import BuildError, compiled

    try:
        compiled()
    except BuildError as error:
        warnings.warn(
            f"the fast CRF cannot be built here ({error}): the torch backend takes over, same "
            "results, about a third of the speed",
            stacklevel=4,
        )
        return "torch"
    return "native"
