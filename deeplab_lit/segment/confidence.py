"""How sure a network must be of a pixel for it to become a pseudo-label: three rules.

| rule | a pixel keeps its class if its probability is at least |
|---|---|
| a number | that number |
| bdl | the median of the class's pixels over all images, but not more than 0.9 |
| cbst:p | the probability that the surest p of the class's pixels over all images reach |

Sources: BDL (Li et al., CVPR 2019; released SSL.py): x are the probabilities of all pixels that are
taken for a class, in ascending order, and the threshold is x[round(n/2)], half to even, 0 where
there are none. CBST (Zou et al., ECCV 2018; the authors' later release, crst_seg.py): x in
descending order, and the threshold is x[⌊p·n⌋ − 1], 1 where that is none; the label is the class
whose probability is the highest multiple of its threshold, void where it is less than once. Theirs
looks at every fourth pixel, which saves memory; here all count.

Probabilities over all images are counted in 64,001 steps: of 0.00005 up to 0.9, 0.000005 up to
0.99, 0.0000005 up to 0.999 and 0.0000001 up to 1, where most of them lie. A threshold is exact to
half a step; what falls into its step has reached it.

Letters: C classes · H×W image.
"""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from deeplab_lit.errors import UserError
from deeplab_lit.types import VOID

ENDS = (0.0, 0.9, 0.99, 0.999, 1.0)  # of the ranges with one step each
STEPS = (0, 18_000, 36_000, 54_000, 64_000)
CAP = 0.9  # BDL's
PORTION = 0.2  # CBST's, of its first round


class ConfidenceError(UserError, ValueError):
    """A rule that is not one of the three; says what was found and what is expected."""


def steps(probabilities: np.ndarray) -> np.ndarray:
    """Return the nearest step of probabilities in 0…1, uint16 of the same shape."""
    return np.rint(np.interp(probabilities, ENDS, STEPS)).astype(np.uint16)


def probability(step: int) -> float:
    """Return the probability of a step."""
    return float(np.interp(step, STEPS, ENDS))


def counts_of(labels: np.ndarray, confidence: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of each class and step.

    Args:
        labels: (H,W) uint8, the most probable class.
        confidence: (H,W) uint16, the step of its probability.
        num_classes: C.

    Returns:
        (C,64001) int64.
    """
    number = STEPS[-1] + 1
    cells = labels.ravel().astype(np.int64) * number + confidence.ravel()
    return np.bincount(cells, minlength=num_classes * number).reshape(num_classes, number)


@dataclass(frozen=True)
class Rule:
    """A rule of --min_confidence.

    Args:
        kind: "number", "bdl" or "cbst".
        value: the number; BDL's highest threshold; CBST's portion.
    """

    kind: Literal["number", "bdl", "cbst"]
    value: float

    @property
    def needs_all(self) -> bool:
        """Tell whether thresholds depend on all images, which must then be looked at first."""
        return self.kind != "number"

    def thresholds(self, counts: np.ndarray) -> list[float]:
        """Return the threshold of each class.

        Args:
            counts: (C,64001), as `counts_of`, summed over all images; of a number, any.
        """
        if self.kind == "number":
            return [self.value] * len(counts)
        numbers = counts.sum(1)
        if self.kind == "bdl":
            found = [_at(row, round(int(n) / 2)) for row, n in zip(counts, numbers, strict=True)]
            return [min(value or 0.0, self.value) for value in found]
        last = [int(n - np.floor(self.value * n)) for n in numbers]  # in ascending order
        found = [_at(row, place) for row, place in zip(counts, last, strict=True)]
        return [1.0 if value is None else value for value in found]

    def labels(self, probabilities: Tensor, thresholds: list[float]) -> np.ndarray:
        """Return the pseudo-labels (H,W) uint8 of probabilities (C,H,W), 255 where unsure."""
        if self.kind == "cbst":
            at_least = probabilities.new_tensor(thresholds).view(-1, 1, 1)
            best = (probabilities / at_least).argmax(dim=0, keepdim=True)
            labels = best[0].to("cpu", torch.uint8).numpy()
            confidence = probabilities.gather(0, best)[0].cpu().numpy()
        else:
            labels, confidence = most_probable(probabilities)
        if self.kind == "number":
            return sure(labels, confidence, np.array(thresholds, np.float32))
        return sure(labels, steps(confidence), steps(np.array(thresholds)))  # as they were counted


def most_probable(probabilities: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the most probable class (H,W) uint8 of (C,H,W), and its probability, on the CPU."""
    confidence, labels = probabilities.max(dim=0)
    return labels.to("cpu", torch.uint8).numpy(), confidence.cpu().numpy()


def sure(labels: np.ndarray, confidence: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return labels (H,W) with 255 where the confidence is below the threshold of the class.

    Args:
        labels: (H,W) uint8.
        confidence: (H,W), as probabilities or as steps.
        thresholds: (C,), likewise.
    """
    return np.where(confidence < thresholds[labels], VOID, labels).astype(np.uint8)


def rule_of(text: str | float) -> Rule:
    """Return the rule that --min_confidence names: "0.9", "bdl", "cbst" or "cbst:0.2".

    Raises:
        ConfidenceError: it names none.
    """
    name = str(text).strip()
    if name == "bdl":
        return Rule("bdl", CAP)
    match = re.fullmatch(r"cbst(?::(.+))?", name)
    try:
        value = float(match[1] or PORTION) if match else float(name)
    except ValueError:
        value = -1.0
    if match and 0 < value <= 1:
        return Rule("cbst", value)
    if not match and 0 <= value <= 1:
        return Rule("number", value)
    raise ConfidenceError(
        f"--min_confidence is {name!r}: expected a probability in 0…1 for all classes, as 0.9; bdl "
        "for the median of each class, at most 0.9; or cbst:0.2 for the surest fifth of each class"
    )


def _at(row: np.ndarray, place: int) -> float | None:
    """Return the probability at a place, from 0, of the pixels that a row counts, in order."""
    upto = np.cumsum(row)
    if place >= upto[-1]:
        return None
    return probability(int(np.searchsorted(upto, place, side="right")))
