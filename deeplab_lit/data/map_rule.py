"""From class maps to labels: where is background, and which pixels are too uncertain to be used?

| rule | background's score at a pixel |
|---|---|
| threshold:T | T everywhere. IRN, RIB and AdvCAM take 0.15, ReCAM 0.21, LPCAM 0.3 for CAMs |
| power:A | (1 − the highest score there)^A. CLIP-ES takes A = 1 or 2 |

The label of a pixel is what has the highest score there, background or a class; `certain:P` makes
it void where that score, divided by the sum of all, is below P. Probabilities have a background
already, or the data set has none: for them `certain` is all that there is.

Letters: C classes · K those of the maps · H×W image · h×w maps.
"""

import re
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from deeplab_lit.data.class_maps import MAP_SUFFIXES, ClassMaps
from deeplab_lit.data.image import LOSSLESS, DataError
from deeplab_lit.types import VOID, Size

LABEL_FILES = (*LOSSLESS, *MAP_SUFFIXES)  # suffixes of what may hold labels
EXPECTED = (
    "expected threshold:T with a background of T in 0…1, as threshold:0.15; power:A with (1 − the "
    "highest score)^A, as power:2; certain:P, which makes pixels of less than P void, as "
    "certain:0.95; or one of the first two with the third, as power:1,certain:0.95"
)


class MapRuleError(DataError):
    """A rule that is none, or does not go with the maps; says what was found and expected."""


@dataclass(frozen=True)
class MapRule:
    """How class maps become labels.

    Args:
        background: "threshold" or "power". None: the maps are probabilities.
        value: T, or A.
        certain: P in 0…1. None: no pixel becomes void.
    """

    background: Literal["threshold", "power"] | None = None
    value: float = 0.0
    certain: float | None = None

    @classmethod
    def parse(cls, text: str) -> "MapRule":
        """Return the rule that a user has typed, as "threshold:0.15" or "power:1,certain:0.95".

        Raises:
            MapRuleError: it is none.
        """
        parts: dict[str, float] = {}
        for part in text.replace(" ", "").split(","):
            name, _, number = part.partition(":")
            known = name in ("threshold", "power", "certain") and name not in parts
            if not known or not re.fullmatch(r"\d+(\.\d*)?|\.\d+", number):
                raise MapRuleError(f"the rule {text!r} for maps: {EXPECTED}")
            parts[name] = float(number)
        threshold, power, certain = map(parts.get, ("threshold", "power", "certain"))
        if (
            (threshold is not None and power is not None)
            or max(threshold or 0, certain or 0) > 1
            or power == 0
        ):
            raise MapRuleError(f"the rule {text!r} for maps: {EXPECTED}")
        if power is not None:
            return cls("power", power, certain)
        return cls(certain=certain) if threshold is None else cls("threshold", threshold, certain)

    def __str__(self) -> str:
        """Return the rule as it is typed; "" where it is none."""
        first = [] if self.background is None else [f"{self.background}:{self.value:g}"]
        return ",".join(first + ([] if self.certain is None else [f"certain:{self.certain:g}"]))

    def check(self, maps: ClassMaps) -> None:
        """Refuse maps that the rule is not for.

        Raises:
            MapRuleError: scores without background, or probabilities with a rule for it.
        """
        if maps.complete and self.background is not None:
            raise MapRuleError(
                f"{self.background}:{self.value:g} says where background is, but these maps are "
                "probabilities of all classes: leave it out, or give certain:P alone"
            )
        if not maps.complete and self.background is None:
            raise MapRuleError(
                "these maps have no background and need a rule (mask_rule; of refine, --rule): "
                f"{EXPECTED}"
            )

    def labels(self, maps: ClassMaps, size: Size) -> np.ndarray:
        """Return the label of each pixel, (H,W) uint8: a class, or 255 where it is uncertain.

        Args:
            maps: of an image.
            size: H and W.

        Raises:
            MapRuleError: as `check`.
        """
        classes, scores = self._with_background(maps, size)
        labels = classes.astype(np.uint8)[scores.argmax(0)]
        if self.certain is not None:
            labels[scores.max(0) < self.certain * scores.sum(0)] = VOID
        return labels

    def probabilities(self, maps: ClassMaps, num_classes: int, size: Size) -> np.ndarray:
        """Return the scores divided by their sum at each pixel, (C,H,W) float32.

        Where all of them are 0, it is background.

        Args:
            maps: of an image.
            num_classes: C.
            size: H and W.

        Raises:
            MapRuleError: as `check`.
        """
        classes, scores = self._with_background(maps, size)
        total = scores.sum(0)
        scores[0, total == 0] = 1
        probabilities = np.zeros((num_classes, *size), np.float32)
        probabilities[classes] = scores / np.where(total == 0, 1, total)
        return probabilities

    def _with_background(self, maps: ClassMaps, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """Return classes and their scores (K or K+1,H,W) float32, with background in front."""
        self.check(maps)
        scores = resized(maps.maps, size)
        if maps.complete:
            return maps.classes, scores
        if self.background == "threshold":
            background = np.full((1, *size), self.value, np.float32)
        else:
            highest = scores.max(0, keepdims=True, initial=0).clip(0, 1)
            background = (1 - highest) ** np.float32(self.value)
        return np.pad(maps.classes, (1, 0)), np.concatenate([background, scores])


def resized(maps: np.ndarray, size: Size) -> np.ndarray:
    """Return maps (K,h,w) float32 at another size (K,H,W), bilinearly; a copy.

    Raises:
        MapRuleError: as `check_shape`.
    """
    if maps.shape[1:] == tuple(size):
        return maps.copy()
    check_shape(maps, size)
    height, width = size
    grown = [cv2.resize(map, (width, height), interpolation=cv2.INTER_LINEAR) for map in maps]
    return np.stack(grown) if grown else np.zeros((0, *size), np.float32)


def check_shape(maps: np.ndarray, size: Size) -> None:
    """Refuse maps (K,h,w) of another shape than an image of a size H,W.

    Raises:
        MapRuleError: the image is much wider or narrower; or one of two sides is the same.
    """
    (h, w), (height, width) = maps.shape[1:], size
    # off by the rounding of a cell, or square, as the input of many networks
    differs = h != w and abs(w * height - h * width) > 2 * max(height, width)
    if differs or (h != w and (h == height) != (w == width)):
        raise MapRuleError(
            f"maps of {w}×{h} (width × height) for an image of {width}×{height}: are they of "
            "another image, or of one that EXIF turns?"
        )
