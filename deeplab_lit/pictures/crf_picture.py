"""What a parameter of the CRF does, on one image.

Letters: C classes · H×W image.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from deeplab_lit.crf import DenseCRF
from deeplab_lit.pictures.masks import comparison
from deeplab_lit.types import Classes


def small_multiples(
    image: np.ndarray,
    probabilities: np.ndarray,
    classes: Classes,
    name: str,
    values: Sequence[float],
    width: int = 180,
) -> Image.Image:
    """The image, its labels before the CRF, and those after it for each value of a parameter.

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
    after = [DenseCRF(**{name: value})(image, probabilities) for value in values]
    masks = [scores.argmax(0).astype(np.uint8) for scores in (probabilities, *after)]
    titles = ("image", "before", *(f"{name} {value}" for value in values))
    return comparison([(image, *masks)], classes, titles, width)
