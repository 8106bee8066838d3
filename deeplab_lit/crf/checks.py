"""Refusing what is not a raw RGB image with probabilities, before it is refined into nonsense."""

import torch
from torch import Tensor

from deeplab_lit.crf.parameters import CRFError

SUM_TOLERANCE = 1e-2  # of a pixel's probabilities; those of float16 are off by up to 5e-3


def check_image(image: Tensor) -> None:
    """Raise `CRFError` unless (H,W,3) or (B,H,W,3) uint8."""
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
            hint = " It has the channels first: use image.permute(..., 1, 2, 0)."
        raise CRFError(f"image must be (H,W,3), or (B,H,W,3) for a batch; {got}.{hint}")
    if image.numel() == 0:
        raise CRFError(f"image has no pixels; {got}")


def check_probabilities(probabilities: Tensor, image: Tensor) -> None:
    """Raise `CRFError` unless (C,H,W) or (B,C,H,W), of the image's size, 0…1 and summing to 1."""
    got = f"got {_describe(probabilities)}"
    if not probabilities.is_floating_point():
        raise CRFError(f"probabilities must be floating-point; {got}. Masks need one-hot first.")
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
            hint = "The classes come last: use probabilities.permute(..., 2, 0, 1)."
        raise CRFError(f"probabilities must be {h}×{w} as the image is; {got}. {hint}")
    if probabilities.shape[-3] == 0:
        raise CRFError(f"probabilities have no classes; {got}")
    low, high = (x.item() for x in probabilities.aminmax())  # NaN if there is one
    if not (low >= 0 and high <= 1 + SUM_TOLERANCE):
        hint = " They look like logits: use logits.softmax(0), or softmax(1) of a batch."
        if low != low:
            hint = " The network or what came after it has overflowed."
        raise CRFError(f"probabilities must lie in 0…1; got {low:.4g}…{high:.4g}.{hint}")
    least, most = (x.item() for x in probabilities.sum(-3).aminmax())
    if not (least >= 1 - SUM_TOLERANCE and most <= 1 + SUM_TOLERANCE):
        raise CRFError(
            "the probabilities of a pixel must sum to 1 over the classes; "
            f"got sums of {least:.4g}…{most:.4g}. Use a softmax over the classes."
        )


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
