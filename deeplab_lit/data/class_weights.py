"""Weights of classes from how often they occur: by two rules, written as JSON and read again.

Letters: C classes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.check import Summary
from deeplab_lit.data.image import DataError

Rule = Literal["enet", "median_frequency"]


def enet(pixels: np.ndarray, void: int = 0) -> np.ndarray:
    """Return 1/ln(1.02 + p) of each class, p its share of all pixels; from 1.42 to 50.5.

    Paszke et al., ENet (arXiv:1606.02147), Sec. 5.2. As in davidtvs/PyTorch-ENet, void pixels are
    among all.

    Args:
        pixels: (C,) of each class.
        void: pixels.
    """
    return 1 / np.log(1.02 + pixels / max(pixels.sum() + void, 1))


def median_frequency(pixels: np.ndarray, image_pixels: np.ndarray) -> np.ndarray:
    """Return median(f)/f of each class, f its share in the images that hold it; 0 of one in none.

    Eigen and Fergus (arXiv:1411.4734), Sec. 6.3.2; SegNet. The median is over the classes that
    occur.

    Args:
        pixels: (C,) of each class.
        image_pixels: (C,) all pixels, void too, of the images that hold each class.
    """
    weights, occurs = np.zeros(len(pixels)), pixels > 0
    frequency = pixels[occurs] / image_pixels[occurs]
    weights[occurs] = np.median(frequency) / frequency if occurs.any() else 0
    return weights


def write_class_weights(
    path: Path,
    summary: Summary,
    classes: Sequence[str],
    *,
    data: str,
    masks: str | None,
    version: str,
) -> None:
    """Write what was counted of a split, and the weights that follow from it, as JSON.

    Args:
        path: of the file, written whole or not at all.
        summary: of the split.
        classes: their names, C of them.
        data: names data set and split.
        masks: folder of the masks, where they are not the data set's.
        version: of this package.

    Raises:
        WriteError: nothing can be written there.
    """
    content: dict[str, Any] = {
        "deeplab_lit": version,
        "data": data,
        "masks": masks,
        "images": summary.number,
        "void": summary.void,
        "classes": list(classes),
        "pixels": summary.pixels.tolist(),
        "image_pixels": summary.image_pixels.tolist(),
        "weights": {
            "enet": enet(summary.pixels, summary.void).tolist(),
            "median_frequency": median_frequency(summary.pixels, summary.image_pixels).tolist(),
        },
    }
    with atomic_write(path) as place:
        place.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_class_weights(path: str | Path, rule: Rule) -> tuple[list[str], list[float]]:
    """Return the names of the classes in a file of `write_class_weights`, and their weights.

    Args:
        path: of the file.
        rule: which of its weights.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    if rule not in get_args(Rule):
        raise DataError(f"rule must be one of {', '.join(get_args(Rule))}, got {rule!r}")
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        names, weights = content["classes"], content["weights"][rule]
        is_whole = len(names) == len(weights) and all(
            isinstance(name, str) and type(weight) in (int, float)
            for name, weight in zip(names, weights, strict=True)
        )
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise DataError(
            f"{path} holds no weights of classes by the rule {rule}: expected a file that "
            "prepare check --weights FILE has written"
        )
    return names, weights
