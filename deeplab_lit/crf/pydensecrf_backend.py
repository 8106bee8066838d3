"""The `pydensecrf` backend: the authors' C++ code through its Python wrapper, the reference.

Package `pydensecrf2` on PyPI. One image and one thread at a time, and it holds the GIL. Where H·W
is not a multiple of 4 it filters up to three pixels that are not there: up to 4e-3 in a
probability.

Letters: B images · C classes · N = H·W.
"""

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from deeplab_lit.crf.parameters import CRFError, Parameters
from deeplab_lit.crf.permutohedral import key_layout


def refine(images: Tensor, unary: Tensor, parameters: Parameters, threads: int | None) -> Tensor:
    """Refine: images (B,H,W,3) uint8, unary (B,C,N) energies → probabilities (B,C,N) float32.

    Args:
        images: on any device, as is `unary`; the work is done on the CPU.
        unary: −log of the probabilities.
        parameters: of the pairwise terms.
        threads: not used.

    Raises:
        CRFError: pydensecrf is not installed.
    """
    densecrf = import_pydensecrf()
    p = parameters
    normalization = {
        "symmetric": densecrf.NORMALIZE_SYMMETRIC,
        "after": densecrf.NORMALIZE_AFTER,
    }[p.normalization]
    refined = []
    kernels = [(p.pos_w, p.pos_xy_std, None), (p.bi_w, p.bi_xy_std, p.bi_rgb_std)]
    for weight, xy_std, rgb_std in kernels:
        if weight:
            key_layout(images.shape[1:3], xy_std, rgb_std)  # refuses what makes pydensecrf crash
    for image, energy in zip(images.cpu().numpy(), unary.cpu().numpy(), strict=True):
        h, w, _ = image.shape
        crf = densecrf.DenseCRF2D(w, h, len(energy))
        crf.setUnaryEnergy(np.array(energy, order="C"))  # it wants writable, contiguous arrays
        if p.pos_w:
            crf.addPairwiseGaussian(p.pos_xy_std, compat=p.pos_w, normalization=normalization)
        if p.bi_w:
            crf.addPairwiseBilateral(
                p.bi_xy_std,
                p.bi_rgb_std,
                np.array(image, order="C"),
                compat=p.bi_w,
                normalization=normalization,
            )
        refined.append(torch.from_numpy(np.array(crf.inference(p.iterations), order="C")))
    return torch.stack(refined).to(unary.device)


def import_pydensecrf() -> ModuleType:
    """Import the module `pydensecrf.densecrf`.

    Raises:
        CRFError: it is not installed.
    """
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise CRFError(
            f"the backend pydensecrf is not installed ({error}): pip install pydensecrf2 "
            "(which Python 3.13 cannot have), or take "
            "backend='auto', which computes the same and needs nothing"
        ) from error
    return densecrf
