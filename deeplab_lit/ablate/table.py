"""The rows of an ablation's table: each setting over its seeds, and against the baseline."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import deeplab_lit
from deeplab_lit.ablate.bootstrap import Difference, compare, corrected
from deeplab_lit.ablate.results import Result
from deeplab_lit.network.deeplab import DeepLabV2


@dataclass(frozen=True)
class Row:
    """A setting over its seeds.

    Attributes:
        label: the setting in words.
        results: of its seeds.
        difference: to the baseline; null for the baseline itself.
        after_crf: whether that is one of the scores after the CRF.
        option: what the label is a value of.
    """

    label: str
    results: list[Result]
    difference: Difference | None
    after_crf: bool = False
    option: str = "setting"

    def scores(self, after_crf: bool) -> list[float]:
        """The mIoU of each seed, NaN where it is not known; empty where the CRF was not run."""
        found = [r.miou_crf if after_crf else r.miou for r in self.results]
        return [value for value in found if value is not None]

    def network(self) -> DeepLabV2:
        """The first seed's."""
        return deeplab_lit.load(self.results[0].run.fit.folder / "checkpoints/best.ckpt")

    def images_per_second(self) -> float | None:
        """Of the trainings, the median over seeds; null where none could be measured."""
        speeds = [r.images_per_second for r in self.results if r.images_per_second is not None]
        return statistics.median(speeds) if speeds else None

    def parameters(self) -> float:
        """Learnable ones, the median over seeds."""
        return statistics.median(r.parameters for r in self.results)

    def seconds(self) -> float:
        """Of a training, the mean over seeds."""
        return statistics.mean(r.fit["wall_seconds"] for r in self.results)


def rows(
    results: Sequence[Result], labels: Sequence[str], after_crf: bool, option: str = "setting"
) -> list[Row]:
    """One row a setting that has results, the baseline first.

    Args:
        results: of all runs.
        labels: of all settings.
        after_crf: compare the scores after the CRF.
        option: what the labels are values of.
    """
    by_setting = [[r for r in results if r.run.setting == i] for i in range(len(labels))]
    baseline = by_setting[0]
    done = [(label, own) for label, own in zip(labels, by_setting, strict=True) if own]
    differences = corrected(
        [
            None if own is baseline or not baseline else _difference(own, baseline, after_crf)
            for _, own in done
        ]
    )
    return [
        Row(*row, difference, after_crf, option)
        for row, difference in zip(done, differences, strict=True)
    ]


def by_training(rows: Sequence[Row]) -> dict[str, Row]:
    """Rows that share their trainings as one, under the words for all of them."""
    groups: dict[frozenset, list[Row]] = {}
    for row in rows:
        groups.setdefault(frozenset(r.run.fit.folder for r in row.results), []).append(row)
    if len(groups) == 1 < len(rows):
        return {"all settings": rows[0]}
    return {" / ".join(row.label for row in group): group[0] for group in groups.values()}


def _difference(own: list[Result], baseline: list[Result], after_crf: bool) -> Difference | None:
    """Between all seeds of each side, as in the table; where trainings are shared, in pairs."""
    pairs = _pairs(own, baseline)
    if pairs:
        own, baseline = ([pair[i] for pair in pairs] for i in (0, 1))
    sides = (own, baseline)
    scores = [[r.miou_crf if after_crf else r.miou for r in side] for side in sides]
    if any(value is None for side in scores for value in side):
        return None
    if len({frozenset(r.scored(after_crf)["iou"]) for side in sides for r in side}) > 1:
        return Difference(math.nan, None, None, None, "other classes")
    counts = _counts(sides, "counts_crf" if after_crf else "counts")
    return compare(*scores, *counts, same_trainings=bool(pairs))


def _pairs(own: list[Result], baseline: list[Result]) -> list[tuple[Result, Result]]:
    """Results of the same seeds, if those are scores of the very same trainings; else none."""
    theirs = {r.run.seed: r for r in baseline}
    pairs = [(r, theirs[r.run.seed]) for r in own if r.run.seed in theirs]
    shared = all(ours.run.fit == other.run.fit for ours, other in pairs)
    return pairs if shared else []


def _counts(sides: Sequence[list[Result]], key: str) -> list[list[np.ndarray]]:
    """Of the images, one array a seed; none where not all counted the same images."""
    ids = {tuple(r.images["ids"]) if key in r.images else () for side in sides for r in side}
    paired = len(ids) == 1 and ids != {()}
    return [[r.images[key] for r in side] if paired else [] for side in sides]
