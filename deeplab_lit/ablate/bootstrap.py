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
    """The difference between a setting and the baseline, in mIoU, 0…1.

    Attributes:
        mean: difference of the means over seeds; NaN: a score is unknown.
        low: lower end of the bootstrap's interval over images (95 %); None: there are no counts of
            two or more images.
        high: upper end of that interval.
        p_seeds: probability of such a difference between seeds alone; None: seeds cannot tell,
            being one on either side, or several with equal scores. In a table of several settings,
            corrected for their number.
        missing_part: what is missing, where that is neither a second seed nor the counts.
    """

    mean: float
    low: float | None
    high: float | None
    p_seeds: float | None
    missing_part: str = ""

    @property
    def verdict(self) -> str:
        """One of better, worse, within noise (images or seeds alone may explain it), unknown."""
        if math.isnan(self.mean) or self.p_seeds is None:
            return "unknown"
        interval = None if self.low is None or self.high is None else (self.low, self.high)
        zero_in_interval = interval is not None and not (interval[0] > 0 or interval[1] < 0)
        if zero_in_interval or not self.p_seeds <= 1 - LEVEL or self.mean == 0:
            return "within noise"
        if interval is None:
            return "unknown"
        return "better" if self.mean > 0 else "worse"

    @property
    def missing(self) -> str:
        """Why the verdict is unknown, in words."""
        if math.isnan(self.mean):
            return self.missing_part or "a score is missing"
        if self.p_seeds is None:
            return self.missing_part or "one seed"
        return self.missing_part or "no counts of the same images"

    @property
    def points(self) -> str:
        """In percent, with the ends of the interval, as "+1.20 [+0.50, +1.90]"; "–": unknown."""
        if math.isnan(self.mean):
            return "–"
        text = f"{100 * self.mean:+.2f}"
        if self.low is None or self.high is None:
            return text
        return f"{text} [{100 * self.low:+.2f}, {100 * self.high:+.2f}]"


def miou(counts: np.ndarray) -> np.ndarray:
    """Return the mean IoU (…), 0…1, without absent classes; NaN where all are absent.

    Args:
        counts: (…,3,C) hits, true pixels and predicted pixels of each class.
    """
    hits, true, predicted = (counts[..., i, :].astype(np.float64) for i in range(3))
    union = true + predicted - hits
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    classes = np.asarray((union > 0).sum(-1), np.float64)
    nothing = np.full_like(classes, np.nan)
    return np.divide(iou.sum(-1), classes, out=nothing, where=classes > 0)


def interval(
    setting: Sequence[np.ndarray],
    baseline: Sequence[np.ndarray],
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the bootstrap interval (95 %) of the difference in mIoU of the means over seeds.

    Args:
        setting: counts (N,3,C), one array a seed.
        baseline: counts of the same images in the same order, one array a seed.
        draws: how often N images are drawn.
        seed: seed of the draws.

    Raises:
        ValueError: the counts are not of equally many images and classes.
    """
    shapes = {counts.shape for counts in (*setting, *baseline)}
    if len(shapes) != 1:
        raise ValueError(f"counts of different images or classes cannot be paired: {shapes}")
    n, _, classes = shapes.pop()
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)

    def mean_miou(seeds: Sequence[np.ndarray]) -> np.ndarray:
        drawn = [weights @ counts.reshape(n, -1).astype(np.float64) for counts in seeds]
        return np.mean([miou(x.reshape(draws, 3, classes)) for x in drawn], axis=0)

    tail = 50 * (1 - LEVEL)
    gains = mean_miou(setting) - mean_miou(baseline)  # NaN for a draw of images that are all void
    low, high = np.nanpercentile(gains, [tail, 100 - tail])
    return float(low), float(high)


def compare(
    setting: Sequence[float],
    baseline: Sequence[float],
    setting_counts: Sequence[np.ndarray] = (),
    baseline_counts: Sequence[np.ndarray] = (),
    *,
    same_trainings: bool = False,
) -> Difference:
    """Compare a setting with the baseline.

    Args:
        setting: mIoU of each seed, 0…1; NaN: unknown.
        baseline: mIoU of each seed; with `same_trainings` of the same seeds in the same order.
        setting_counts: counts (N,3,C) of each image, one array a seed; empty: there are none.
        baseline_counts: counts of the same images, one array a seed; empty: there are none.
        same_trainings: seed by seed, both are scores of one and the same network.
    """
    mean = float(np.mean(setting) - np.mean(baseline))
    if math.isnan(mean):
        return Difference(mean, None, None, None)
    low = high = p = None
    missing_part = ""
    if setting_counts and baseline_counts:
        if len(setting_counts[0]) > 1:
            low, high = interval(setting_counts, baseline_counts)
        else:
            missing_part = "one image"
    if len(setting) > 1 and len(baseline) > 1:
        samples = [np.subtract(setting, baseline)] if same_trainings else [setting, baseline]
        if max(map(np.ptp, samples)) > ROUNDING:
            test = stats.ttest_rel if same_trainings else partial(stats.ttest_ind, equal_var=False)
            p = float(test(setting, baseline).pvalue)
        elif abs(mean) <= ROUNDING:
            p = 1.0
        else:  # no test: seeds that change nothing say nothing of other seeds
            missing_part = "no spread between seeds"
    elif missing_part:
        missing_part = ""  # one seed is what it lacks first
    return Difference(mean, low, high, p, missing_part)


def corrected(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """Return the differences with p_seeds corrected for their number.

    Holm's method (Scand. J. Statist. 1979): the chance that any of them passes where none has an
    effect stays that of a single test.
    """
    p_seeds = {i: d.p_seeds for i, d in enumerate(differences) if d and d.p_seeds is not None}
    result = list(differences)
    least = 0.0  # none may be below the one before it
    for rank, (i, p) in enumerate(sorted(p_seeds.items(), key=lambda item: item[1])):
        least = max(least, min(p * (len(p_seeds) - rank), 1.0))
        if (difference := differences[i]) is not None:
            result[i] = difference._replace(p_seeds=least)
    return result
