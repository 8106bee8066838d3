"""Is a difference more than noise? Two questions, both to be answered with yes.

- Would other images say the same? A paired bootstrap over the validation images: the same images
  are drawn, with replacement, for both settings, and mIoU is computed anew from the summed counts
  of each draw (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, Sec. 13.3).
- Would other seeds say the same? Welch's t-test between the seeds' scores; a paired one where the
  settings share their trainings. Of many settings some differ by chance: Holm's correction.

Without an answer to the second the verdict is "unknown", whatever the images say; without one to
the first it is never "better" or "worse". "Within noise" is not "equal": it may be that there were
too few seeds or images to tell.

Letters: N images · C classes · S seeds.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS = 2000
LEVEL = 0.95
ROUNDING = 1e-9  # of scores, far below a single pixel


class Difference(NamedTuple):
    """Between a setting and the baseline, in mIoU, 0…1.

    Attributes:
        mean: over the seeds; NaN where a score is not known.
        low: end of the bootstrap's interval over images (95 %); None without counts of two images.
        high: the other end.
        p_seeds: probability of such a difference between seeds alone; None where seeds cannot say:
            one on either side, or several that differ in nothing. In a table of several settings,
            corrected for their number.
        why: what is missing, where that is not one seed or the counts.
    """

    mean: float
    low: float | None
    high: float | None
    p_seeds: float | None
    why: str = ""

    @property
    def verdict(self) -> str:
        """One of better, worse, within noise (images or seeds alone may explain it), unknown."""
        if math.isnan(self.mean) or self.p_seeds is None:
            return "unknown"
        images = self.low is not None and not (self.low > 0 or self.high < 0)
        seeds = not self.p_seeds <= 1 - LEVEL
        if images or seeds or self.mean == 0:
            return "within noise"
        if self.low is None:
            return "unknown"
        return "better" if self.mean > 0 else "worse"

    @property
    def missing(self) -> str:
        """Why the verdict is unknown, in words."""
        if math.isnan(self.mean):
            return self.why or "a score is missing"
        if self.p_seeds is None:
            return self.why or "one seed"
        return self.why or "no counts of the same images"


def miou(counts: np.ndarray) -> np.ndarray:
    """Counts (…,3,C) of hits, true and predicted pixels → mean IoU (…), absent classes left out.

    NaN where all are absent.
    """
    hits, true, predicted = (counts[..., i, :].astype(np.float64) for i in range(3))
    union = true + predicted - hits
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    classes = np.asarray((union > 0).sum(-1), np.float64)
    nothing = np.full_like(classes, np.nan)
    return np.divide(iou.sum(-1), classes, out=nothing, where=classes > 0)


def interval(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval (95 %, percentiles) of the mean over seeds of the difference in mIoU.

    Args:
        ours: counts (N,3,C) of a setting, one array a seed.
        theirs: those of the baseline, of the same images in the same order.
        draws: how often images are drawn.
        seed: of the draws.

    Raises:
        ValueError: the counts are not of equally many images and classes.
    """
    shapes = {counts.shape for counts in (*ours, *theirs)}
    if len(shapes) != 1:
        raise ValueError(f"counts of different images or classes cannot be paired: {shapes}")
    n, _, classes = shapes.pop()
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)

    def mean_miou(seeds: Sequence[np.ndarray]) -> np.ndarray:
        drawn = [weights @ counts.reshape(n, -1).astype(np.float64) for counts in seeds]
        return np.mean([miou(x.reshape(draws, 3, classes)) for x in drawn], axis=0)

    tail = 50 * (1 - LEVEL)
    gains = mean_miou(ours) - mean_miou(theirs)  # NaN for a draw of images that are all void
    low, high = np.nanpercentile(gains, [tail, 100 - tail])
    return float(low), float(high)


def compare(
    ours: Sequence[float],
    theirs: Sequence[float],
    our_counts: Sequence[np.ndarray] = (),
    their_counts: Sequence[np.ndarray] = (),
    *,
    same_trainings: bool = False,
) -> Difference:
    """A setting against the baseline.

    Args:
        ours: mIoU of each seed; NaN: not known.
        theirs: the baseline's; seed by seed beside ours with `same_trainings`, else as many as
            there are.
        our_counts: of images (N,3,C), one array a seed; empty if they were not written.
        their_counts: the baseline's.
        same_trainings: seed by seed, both are scores of one and the same network.
    """
    mean = float(np.mean(ours) - np.mean(theirs))
    if math.isnan(mean):
        return Difference(mean, None, None, None)
    low = high = p = None
    why = ""
    if our_counts and their_counts:
        if len(our_counts[0]) > 1:
            low, high = interval(our_counts, their_counts)
        else:
            why = "one image"
    if len(ours) > 1 and len(theirs) > 1:
        sides = [np.subtract(ours, theirs)] if same_trainings else [ours, theirs]
        if max(map(np.ptp, sides)) > ROUNDING:
            test = stats.ttest_rel if same_trainings else partial(stats.ttest_ind, equal_var=False)
            p = float(test(ours, theirs).pvalue)
        elif abs(mean) <= ROUNDING:
            p = 1.0
        else:  # no test: seeds that change nothing say nothing of other seeds
            why = "no spread between seeds"
    elif why:
        why = ""  # one seed is what it lacks first
    return Difference(mean, low, high, p, why)


def corrected(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """The same with p of the seeds corrected for their number (Holm, Scand. J. Statist. 1979).

    So the chance that any of them passes, where none has an effect, stays that of a single test.
    """
    found = list(differences)
    tested = [i for i, d in enumerate(found) if d is not None and d.p_seeds is not None]
    tested.sort(key=lambda i: found[i].p_seeds)
    least = 0.0  # none may be below the one before it
    for rank, i in enumerate(tested):
        least = max(least, min(found[i].p_seeds * (len(tested) - rank), 1.0))
        found[i] = found[i]._replace(p_seeds=least)
    return found
