"""What a first pass over all images leaves of each, by which the thresholds of classes are found.

Letters: C classes · H×W image.
"""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.image import DataError
from deeplab_lit.segment.confidence import CAP, STEPS, Rule, counts_of, most_probable, steps


class Look(NamedTuple):
    """Hold what the first pass keeps of an image.

    Attributes:
        cells: places that are not 0 in the table (C,64001) of `counts_of`, flat and in order.
        numbers: of pixels counted there.
        labels: (H,W) uint8, the most probable class; (0,0) where it is not needed again.
        confidence: (H,W) uint16, the step of its probability, but at most that of BDL's highest
            threshold: the same values compress well, and what is above is kept anyway.
    """

    cells: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray


def look_at(probabilities: Tensor, rule: Rule, num_classes: int) -> Look:
    """Return what the first pass keeps of an image's probabilities (C,H,W)."""
    labels, confidence = most_probable(probabilities)
    step = steps(confidence)
    counts = counts_of(labels, step, num_classes).ravel()
    cells = np.flatnonzero(counts)
    if rule.kind != "bdl":
        labels, step = labels[:0, :0], step[:0, :0]
    capped = np.minimum(step, steps(np.array(CAP)))
    return Look(cells.astype(np.uint32), counts[cells].astype(np.uint32), labels, capped)


def write_look(look: Look, path: Path) -> None:
    """Write what is kept of an image, atomically."""
    # of the places their differences, which compress well
    arrays = [np.diff(look.cells, prepend=np.uint32(0)), *look[1:]]
    with atomic_write(path) as place, gzip.open(place, "wb", compresslevel=1) as file:
        for array in arrays:
            np.save(file, array)


def read_look(path: Path, *, whole: bool = True) -> Look:
    """Read what the first pass has kept of an image; without labels unless `whole`.

    Raises:
        DataError: the file is damaged.
    """
    nothing = np.zeros((0, 0), np.uint8)
    try:
        with gzip.open(path, "rb") as file:
            differences, numbers, *pictures = [
                np.lib.format.read_array(file, allow_pickle=False) for _ in range(4 if whole else 2)
            ]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is damaged: remove it and start again") from error
    labels, confidence = pictures or (nothing, nothing)
    return Look(np.cumsum(differences, dtype=np.uint32), numbers, labels, confidence)


def counts_in(looks: Sequence[Path], num_classes: int) -> np.ndarray:
    """Return the pixels of each class and step in all images, (C,64001) int64."""
    counts = np.zeros((num_classes, STEPS[-1] + 1), np.int64)
    for path in looks:
        look = read_look(path, whole=False)
        counts.ravel()[look.cells] += look.numbers
    return counts
