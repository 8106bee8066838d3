"""The table of an ablation: each setting over its seeds, and against the baseline."""

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deeplab_lit.ablate.bootstrap import Difference, compare, corrected
from deeplab_lit.ablate.results import Result


@dataclass(frozen=True)
class Row:
    """A setting over its seeds.

    Attributes:
        label: the setting in words.
        results: one result a seed.
        difference: difference to the baseline; None: it is the baseline, or there is none.
        after_crf: whether `difference` is one of the scores after the CRF.
        option: name of the option that the label is a value of; "setting": of several.
        subset: of the classes, whose mIoU `difference` is of; "": of all.
        subsets: names of all that a run of the table has scored.
        macs: multiply-adds of a training crop through the network; None: unknown.
    """

    label: str
    results: list[Result]
    difference: Difference | None
    after_crf: bool = False
    option: str = "setting"
    subset: str = ""
    subsets: tuple[str, ...] = ()
    macs: int | None = None

    def scores(self, after_crf: bool, subset: str = "") -> list[float]:
        """Return the mIoU of each seed, NaN: unknown; empty: not scored, as without the CRF."""
        scores = [r.mean_iou(after_crf, subset) for r in self.results]
        return [value for value in scores if value is not None]

    def compared(self) -> list[float]:
        """Return the scores of which `difference` is."""
        return self.scores(self.after_crf, self.subset)

    def images_per_second(self) -> float | None:
        """Return the speed of the trainings, the median over seeds; None: it was not measured."""
        speeds = [r.images_per_second for r in self.results if r.images_per_second is not None]
        return statistics.median(speeds) if speeds else None

    def parameters(self) -> float:
        """Return the number of learnable parameters, the median over seeds."""
        return statistics.median(r.parameters for r in self.results)

    def seconds(self) -> float:
        """Return the seconds of a training, the mean over seeds."""
        return statistics.mean(r.fit["wall_seconds"] for r in self.results)


def rows(
    results: Sequence[Result],
    labels: Sequence[str],
    after_crf: bool,
    option: str = "setting",
    subset: str = "",
) -> list[Row]:
    """Return one row for each setting that has results, the baseline first.

    Args:
        results: results of all runs.
        labels: labels of all settings.
        after_crf: compare the scores after the CRF.
        option: what the labels are values of.
        subset: compare the mIoU of this subset of the classes; "": of all.
    """
    subsets = tuple(dict.fromkeys(name for result in results for name in result.subsets))
    by_setting = [[r for r in results if r.run.setting == i] for i in range(len(labels))]
    baseline = by_setting[0]
    done = [(label, group) for label, group in zip(labels, by_setting, strict=True) if group]
    differences = corrected(
        [
            None
            if group is baseline or not baseline
            else _difference(group, baseline, after_crf, subset)
            for _, group in done
        ]
    )
    return [
        Row(*row, difference, after_crf, option, subset, subsets)
        for row, difference in zip(done, differences, strict=True)
    ]


def by_training(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows that share their trainings, under the words for all of them."""
    groups: dict[frozenset, list[Row]] = {}
    for row in rows:
        groups.setdefault(frozenset(r.run.fit.folder for r in row.results), []).append(row)
    if len(groups) == 1 < len(rows):
        return {"all settings": list(rows)}
    return {" / ".join(row.label for row in group): group for group in groups.values()}


def _difference(
    setting: list[Result], baseline: list[Result], after_crf: bool, subset: str
) -> Difference | None:
    """Compare all seeds of both; where trainings are shared, in pairs of the same seed."""
    pairs = _pairs(setting, baseline)
    if pairs:
        setting, baseline = ([pair[i] for pair in pairs] for i in (0, 1))
    sides = (setting, baseline)
    if after_crf and any(r.miou_crf is None for side in sides for r in side):
        return None
    if any(r.mean_iou(after_crf, subset) is None for side in sides for r in side):
        return Difference(math.nan, None, None, None, f"mIoU{subset} is not scored")
    if subset and len({r.rule for side in sides for r in side}) > 1:
        return Difference(math.nan, None, None, None, f"mIoU{subset} by another rule")
    if len({frozenset(r.scored(after_crf)["iou"]) for side in sides for r in side}) > 1:
        return Difference(math.nan, None, None, None, "other classes")
    scores, baseline_scores = ([_score(r, after_crf, subset) for r in side] for side in sides)
    counts, baseline_counts = _counts(sides, after_crf, subset)
    return compare(scores, baseline_scores, counts, baseline_counts, same_trainings=bool(pairs))


def _score(result: Result, after_crf: bool, subset: str) -> float:
    score = result.mean_iou(after_crf, subset)
    return math.nan if score is None else score


def _pairs(setting: list[Result], baseline: list[Result]) -> list[tuple[Result, Result]]:
    """Return the results of the same seeds, if both score the same trainings; else nothing."""
    by_seed = {r.run.seed: r for r in baseline}
    pairs = [(r, by_seed[r.run.seed]) for r in setting if r.run.seed in by_seed]
    shared = all(one.run.fit == other.run.fit for one, other in pairs)
    return pairs if shared else []


def _counts(sides: Sequence[list[Result]], after_crf: bool, subset: str) -> list[list[np.ndarray]]:
    """Return the counts of each side, one array a seed; empty unless all are of the same images.

    Of a subset those of its classes alone, (N,3,·).
    """
    first = sides[0][0]
    pixels = subset and first.rule == "pixels"
    key = f"counts{'_pixels' if pixels else ''}{'_crf' if after_crf else ''}"
    names = list(first.scored(after_crf)["iou"])
    members = [names.index(name) for name in first.subsets[subset]] if subset else slice(None)
    ids = {tuple(r.images["ids"]) if key in r.images else () for side in sides for r in side}
    paired = len(ids) == 1 and ids != {()}
    return [[r.images[key][..., members] for r in side] if paired else [] for side in sides]


def cells(row: Row) -> dict[str, str]:
    """Return a row as column → text; "–": not measured."""
    speed, difference = row.images_per_second(), row.difference
    of_subset = f", mIoU{row.subset}" if row.subset else ""
    return {
        row.option: row.label,
        "seeds": str(len(row.results)),
        "mIoU": spread(row.scores(after_crf=False)),
        "mIoU, CRF": spread(row.scores(after_crf=True)),
        **_of_subsets(row),
        f"difference{of_subset}{', CRF' if row.after_crf else ''}": difference.points
        if difference
        else "–",
        "p, seeds": _probability(difference),
        "verdict": verdict(difference),
        "parameters": f"{row.parameters():,.0f}",
        "GMAC, crop": "–" if row.macs is None else f"{row.macs / 1e9:,.3f}",
        "images/s": f"{speed:.1f}" if speed else "–",
        "seconds": f"{row.seconds():.0f}",
    }


def _of_subsets(row: Row) -> dict[str, str]:
    """Return the mIoU of each subset of the classes; after the CRF too where it is compared."""
    kinds = {"": False} | ({", CRF": True} if row.after_crf else {})
    return {
        f"mIoU{subset}{when}": spread(row.scores(after_crf, subset))
        for subset in row.subsets
        for when, after_crf in kinds.items()
    }


def spread(scores: Sequence[float]) -> str:
    """Return mean ± standard deviation over seeds in percent; "–": one is missing or unknown."""
    if not scores or np.isnan(scores).any():
        return "–"
    mean = f"{100 * np.mean(scores):.2f}"
    return f"{mean} ± {100 * statistics.stdev(scores):.2f}" if len(scores) > 1 else mean


def _probability(difference: Difference | None) -> str:
    if difference is None or difference.p_seeds is None:
        return "–"
    return f"{difference.p_seeds:.2g}" if difference.p_seeds >= 0.001 else "<0.001"


def verdict(difference: Difference | None) -> str:
    """Return what the difference to the baseline is worth, and why where that is unknown."""
    if difference is None:
        return ""
    if difference.verdict != "unknown":
        return difference.verdict
    return f"unknown: {difference.missing}"


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, in the paper's form."""
    lines = [cells(row) for row in rows]
    head = list(lines[0])
    table = [head, ["---"] * len(head), *(list(line.values()) for line in lines)]
    table = [[" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in table]
    return "\n".join("| " + " | ".join(line) + " |" for line in table) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """Return the results as CSV: one line a setting and seed, with plain numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    means = [
        (f"miou{subset}{'_crf' if after_crf else ''}", after_crf, subset)
        for subset in ("", *rows[0].subsets)
        for after_crf in (False, True)
    ]
    names = [name for name, _, _ in means]
    costs = ("parameters", "macs", "images_per_second", "seconds")
    writer.writerow(["setting", "seed", *names, *costs, "run"])
    for row in rows:
        for r in row.results:
            run = r.run
            scores = [r.mean_iou(after_crf, subset) for _, after_crf, subset in means]
            speed, seconds = r.images_per_second, r.fit["wall_seconds"]
            numbers = [*scores, r.parameters, row.macs, speed, seconds]
            writer.writerow([row.label, run.seed, *numbers, run.fit.folder.name])
    return text.getvalue()
