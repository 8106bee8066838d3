"""Show the CRF at work in a notebook: a hand-drawn mask as input, results for a parameter's values.

Letters: C classes · H×W image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from deeplab_lit.crf import CRFError, DenseCRF
from deeplab_lit.pictures.masks import comparison
from deeplab_lit.types import VOID, Classes


def rough_probabilities(
    mask: np.ndarray, num_classes: int, cell: int = 16, certainty: float = 0.9
) -> np.ndarray:
    """Turn a mask into coarse probabilities: averaged over cells, blurred, upsampled bilinearly.

    The blur is over 3×3 cells, so the outline is as coarse as that of a network with such cells,
    and as unsure along its edges.

    Args:
        mask: (H,W) uint8: classes, and 255 where all are equally likely.
        num_classes: C.
        cell: side in pixels.
        certainty: 0…1, probability of the mask's class; the rest goes to all classes alike.

    Returns:
        (C,H,W) float32; the values of a pixel sum to 1.

    Raises:
        CRFError: the mask has a class of C or more.
    """
    wrong = set(np.unique(mask).tolist()) - {*range(num_classes), VOID}
    if wrong:
        raise CRFError(
            f"a mask of {num_classes} classes has 0…{num_classes - 1} and {VOID}, "
            f"this one also {sorted(wrong)}"
        )
    height, width = mask.shape
    scores = np.stack([mask == label for label in range(num_classes)]).astype(np.float32)
    scores[:, mask == VOID] = 1 / num_classes
    cells = F.avg_pool2d(torch.from_numpy(scores)[None], cell, ceil_mode=True)
    cells = F.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
    smooth = F.interpolate(cells, scale_factor=cell, mode="bilinear")[0, :, :height, :width]
    return (certainty * smooth + (1 - certainty) / num_classes).contiguous().numpy()


def small_multiples(
    image: np.ndarray,
    probabilities: np.ndarray,
    classes: Classes,
    name: str,
    values: Sequence[float],
    width: int = 180,
) -> Image.Image:
    """Draw an image, its labels before the CRF, and those after it for each value of a parameter.

    Args:
        image: (H,W,3) uint8 RGB.
        probabilities: (C,H,W), of at most 255 classes.
        classes: names and colors.
        name: of the parameter, as `DenseCRF` has it; the others keep its defaults.
        values: one or more.
        width: of each picture in pixels.

    Raises:
        CRFError: a value that the parameter cannot have.
    """
    settings: list[dict[str, Any]] = [{name: value} for value in values]
    after = [DenseCRF(**parameters)(image, probabilities) for parameters in settings]
    masks = [scores.argmax(0).astype(np.uint8) for scores in (probabilities, *after)]
    titles = ("image", "before", *(f"{name} {value}" for value in values))
    return comparison([(image, *masks)], classes, titles, width)
