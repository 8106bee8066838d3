"""Errors put into a mask on purpose: objects that shrink, grow or go missing, and void.

An object is a connected component (8 neighbors) of a class other than background. Each has one
fate, drawn at random: it stays, is eroded, is dilated, or is missing. Void (255) of the ground
truth counts as what is nearest to it first, since pseudo-labels know nothing of it; then void is
put where an invented uncertainty is highest, near the borders of the degraded mask above all.

Letters: H×W image.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from scipy import ndimage

from deeplab_lit.data.image import DataError
from deeplab_lit.types import VOID

FATES = ("unchanged", "eroded", "dilated", "missing")
UNCHANGED, ERODED, DILATED, MISSING = range(4)
WIDTH = 0.02  # of the shorter side of an image: by how much objects shrink and grow
CELL = 6  # size of the spots of void, in such widths


@dataclass(frozen=True)
class MaskErrors:
    """How much is wrong.

    Args:
        eroded: probability that an object shrinks, 0…1.
        dilated: probability that it grows, over what is around it, 0…1.
        missing: probability that it is left out, 0…1.
        pixels: by which objects shrink and grow; of a thin object at most a half of its greatest
            half-width is taken away, so that none vanishes. None: 2 % of the image's shorter side.
        void: share of the pixels of each image that become void, 0…1.

    Raises:
        DataError: a value outside its range.
    """

    eroded: float = 0.3
    dilated: float = 0.3
    missing: float = 0.2
    pixels: float | None = None
    void: float = 0.3

    def __post_init__(self) -> None:
        for name in ("eroded", "dilated", "missing", "void"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"--{name} must be in 0…1, got {getattr(self, name)}")
        if self.eroded + self.dilated + self.missing > 1 + 1e-9:
            raise DataError(
                f"--eroded {self.eroded}, --dilated {self.dilated} and --missing {self.missing} "
                "are shares of the objects: expected a sum of 1 or less"
            )
        if self.pixels is not None and not self.pixels > 0:
            raise DataError(f"--pixels must be above 0, got {self.pixels}")

    def width(self, shape: tuple[int, ...]) -> float:
        """Return by how many pixels objects of an image (H,W) shrink and grow."""
        return max(WIDTH * min(shape), 1) if self.pixels is None else self.pixels


class Degraded(NamedTuple):
    """A mask with errors.

    Attributes:
        mask: (H,W) uint8, class indices and 255 for void.
        classes: (N,) uint8, the class of each object of the ground truth.
        fates: (N,) int64, what became of each, as index into FATES.
    """

    mask: np.ndarray
    classes: np.ndarray
    fates: np.ndarray


def degraded(
    mask: np.ndarray, errors: MaskErrors, background: int | None, rng: Generator
) -> Degraded:
    """Put errors into a mask.

    Args:
        mask: (H,W) uint8, class indices and 255 for void.
        errors: how much is wrong.
        background: the class that is no object, and is there where an object was. None: all
            classes are objects, and where none is left there is void.
        rng: draws fates and void.
    """
    objects, classes = objects_of(mask, background)
    fates = _fates(len(classes), errors, rng)
    if (mask == VOID).all():
        return Degraded(mask.copy(), classes, fates)
    width = errors.width(mask.shape)
    result = np.full(mask.shape, VOID if background is None else background, np.uint8)
    sizes = np.bincount(objects.ravel(), minlength=len(classes) + 1)[1:]
    boxes = ndimage.find_objects(objects, len(classes))
    for i in np.argsort(-sizes, kind="stable").tolist():  # small objects lie on large ones
        if fates[i] == MISSING:
            continue
        window = _grown(boxes[i], int(width) + 1)
        inside = objects[window] == i + 1
        if fates[i] == ERODED:
            inside = eroded(inside, width)
        elif fates[i] == DILATED:
            inside = _distance(~inside) <= width
        result[window][inside] = classes[i]
    share = round(errors.void * mask.size)
    uncertainty = _uncertainty(result, width, rng)
    uncertainty[result == VOID] = np.inf
    if share:
        result.ravel()[np.argpartition(-uncertainty, share - 1, axis=None)[:share]] = VOID
    return Degraded(result, classes, fates)


def objects_of(mask: np.ndarray, background: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Find the objects of a mask.

    Returns:
        Objects (H,W) int32, 1…N and 0 where there is none; void belongs to what is nearest to it.
        And the class of each, (N,) uint8.
    """
    objects = np.zeros(mask.shape, np.int32)
    classes: list[int] = []
    for index in np.unique(mask).tolist():
        if index not in (VOID, background):
            number, components = cv2.connectedComponents((mask == index).astype(np.uint8))
            there = components > 0
            objects[there] = components[there] + len(classes)
            classes += [index] * (number - 1)
    void = mask == VOID
    if void.any() and not void.all():
        _, nearest = cv2.distanceTransformWithLabels(
            void.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )  # a number for each labeled pixel, and at void that of the nearest
        object_of = np.zeros(nearest.max() + 1, np.int32)
        object_of[nearest[~void]] = objects[~void]
        objects = object_of[nearest]
    return objects, np.array(classes, np.uint8)


def eroded(inside: np.ndarray, width: float) -> np.ndarray:
    """Take `width` pixels off an object (H,W) bool, but at most a half of its half-width.

    The border of the picture is none of the object: nothing is taken off there.
    """
    distance = _distance(inside)
    return distance > min(width, distance.max() / 2)


def _fates(number: int, errors: MaskErrors, rng: Generator) -> np.ndarray:
    limits = np.cumsum([errors.missing, errors.eroded, errors.dilated])
    fates = np.array([MISSING, ERODED, DILATED, UNCHANGED])
    return fates[np.searchsorted(limits, rng.random(number), side="right")]


def _grown(box: tuple[slice, ...], pixels: int) -> tuple[slice, ...]:
    return tuple(slice(max(side.start - pixels, 0), side.stop + pixels) for side in box)


def _distance(inside: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance to the nearest pixel outside, (H,W) float32; 0 there."""
    return cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _uncertainty(mask: np.ndarray, width: float, rng: Generator) -> np.ndarray:
    """Invent how unsure of its labels a mask (H,W) is: near borders, and in spots, (H,W) float32.

    The spots are smooth noise with a standard deviation of about 0.7; a border adds 1, which falls
    off with the distance.
    """
    edge = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        change = np.diff(mask, axis=axis) != 0
        for place in (slice(1, None), slice(-1)):
            edge[(slice(None),) * axis + (place,)] |= change
    height, length = mask.shape
    cell = CELL * width
    grid = rng.standard_normal((int(height / cell) + 2, int(length / cell) + 2), np.float32)
    spots = cv2.resize(grid, (length, height), interpolation=cv2.INTER_CUBIC)
    return spots + np.exp(-_distance(~edge) / np.float32(width))
