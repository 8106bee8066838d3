"""A mask drawn by hand as the coarse probabilities of a network, for the CRF to refine.

Letters: C classes · H×W image.
"""

import numpy as np
import torch
from torch.nn import functional as F

from deeplab_lit.crf.parameters import CRFError

UNKNOWN = 255


def rough_probabilities(
    mask: np.ndarray, num_classes: int, cell: int = 16, certainty: float = 0.9
) -> np.ndarray:
    """A mask averaged over cells, blurred over 3×3 of them, and spread again, bilinearly.

    So the outline is as coarse as that of a network with such cells, and as unsure along its edges.

    Args:
        mask: (H,W) uint8: classes, and 255 where all are equally likely.
        num_classes: C.
        cell: side in pixels.
        certainty: 0…1, what a mask says; the rest goes to all classes alike.

    Returns:
        (C,H,W) float32, of which each pixel's sum is 1.

    Raises:
        CRFError: the mask has a class of C or more.
    """
    wrong = set(np.unique(mask).tolist()) - {*range(num_classes), UNKNOWN}
    if wrong:
        raise CRFError(
            f"a mask of {num_classes} classes has 0…{num_classes - 1} and {UNKNOWN}, "
            f"this one also {sorted(wrong)}"
        )
    height, width = mask.shape
    scores = np.stack([mask == label for label in range(num_classes)]).astype(np.float32)
    scores[:, mask == UNKNOWN] = 1 / num_classes
    cells = F.avg_pool2d(torch.from_numpy(scores)[None], cell, ceil_mode=True)
    cells = F.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
    smooth = F.interpolate(cells, scale_factor=cell, mode="bilinear")[0, :, :height, :width]
    return (certainty * smooth + (1 - certainty) / num_classes).contiguous().numpy()
