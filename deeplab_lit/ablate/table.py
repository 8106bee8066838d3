"""The table of an ablation in the paper's form, as Markdown, as CSV and in words."""

import csv
import io
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
    """

    label: str
    results: list[Result]
    difference: Difference | None
    after_crf: bool = False

    def scores(self, after_crf: bool) -> list[float]:
        """The mIoU of each seed; empty where the CRF was not run."""
        found = [r.miou_crf if after_crf else r.miou for r in self.results]
        return [value for value in found if value is not None]

    def network(self) -> DeepLabV2:
        """The first seed's."""
        return deeplab_lit.load(self.results[0].trial.fit.folder / "checkpoints/best.ckpt")

    def median(self, name: str) -> float | None:
        """Of images_per_second or parameters, over seeds."""
        values = [v for r in self.results if (v := getattr(r, name)) is not None]
        return statistics.median(values) if values else None

    def seconds(self) -> float:
        """Of a training, the mean over seeds."""
        return statistics.mean(r.fit["wall_seconds"] for r in self.results)


def rows(results: Sequence[Result], labels: Sequence[str], after_crf: bool) -> list[Row]:
    """One row a setting that has results, the baseline first.

    Args:
        results: of all trials.
        labels: of all settings.
        after_crf: compare the scores after the CRF.
    """
    by_setting = [[r for r in results if r.trial.setting == i] for i in range(len(labels))]
    baseline = by_setting[0]
    done = [(label, own) for label, own in zip(labels, by_setting, strict=True) if own]
    differences = corrected(
        [
            None if own is baseline or not baseline else _difference(own, baseline, after_crf)
            for _, own in done
        ]
    )
    return [
        Row(*row, difference, after_crf) for row, difference in zip(done, differences, strict=True)
    ]


def by_training(rows: Sequence[Row]) -> dict[str, Row]:
    """Rows that share their trainings as one, under the words for all of them."""
    groups: dict[frozenset, list[Row]] = {}
    for row in rows:
        groups.setdefault(frozenset(r.trial.fit.folder for r in row.results), []).append(row)
    if len(groups) == 1 < len(rows):
        return {"all settings": rows[0]}
    return {" / ".join(row.label for row in group): group[0] for group in groups.values()}


def _difference(own: list[Result], baseline: list[Result], after_crf: bool) -> Difference | None:
    """Over the seeds that both have."""
    seeds = {r.trial.seed for r in own} & {r.trial.seed for r in baseline}
    if not seeds:
        return None
    key = "counts_crf" if after_crf else "counts"
    pairs = [
        sorted((r for r in x if r.trial.seed in seeds), key=lambda r: r.trial.seed)
        for x in (own, baseline)
    ]
    scores = [[(r.miou_crf if after_crf else r.miou) for r in x] for x in pairs]
    if any(value is None for x in scores for value in x):
        return None
    ids = {tuple(r.images["ids"]) if key in r.images else () for x in pairs for r in x}
    paired = len(ids) == 1 and ids != {()}
    counts = [[r.images[key] for r in x] if paired else [] for x in pairs]
    shared = all(a.trial.fit == b.trial.fit for a, b in zip(*pairs, strict=True))
    return compare(*scores, *counts, same_trainings=shared)


def cells(row: Row) -> dict[str, str]:
    """A row as text; "–" for what was not measured."""
    speed, size = row.median("images_per_second"), row.median("parameters")
    return {
        "setting": row.label,
        "seeds": str(len(row.results)),
        "mIoU": spread(row.scores(after_crf=False)),
        "mIoU, CRF": spread(row.scores(after_crf=True)),
        f"difference{', CRF' if row.after_crf else ''}": interval(row.difference),
        "p, seeds": _probability(row.difference),
        "verdict": verdict(row.difference),
        "parameters": f"{size:,.0f}",
        "images/s": f"{speed:.1f}" if speed else "–",
        "seconds": f"{row.seconds():.0f}",
    }


def spread(scores: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds, in percent."""
    if not scores:
        return "–"
    mean = f"{100 * np.mean(scores):.2f}"
    return f"{mean} ± {100 * statistics.stdev(scores):.2f}" if len(scores) > 1 else mean


def interval(difference: Difference | None) -> str:
    """A difference in points, with its ends; “–” where there is none."""
    if difference is None:
        return "–"
    text = f"{100 * difference.mean:+.2f}"
    if difference.low is None:
        return text
    return f"{text} [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"


def _probability(difference: Difference | None) -> str:
    if difference is None or difference.p_seeds is None:
        return "–"
    return f"{difference.p_seeds:.2g}" if difference.p_seeds >= 0.001 else "<0.001"


def verdict(difference: Difference | None) -> str:
    """What the difference to the baseline is worth."""
    if difference is None:
        return ""
    if difference.noise:
        return "within noise"
    word = "better" if difference.mean > 0 else "worse"
    if difference.low is None and difference.p_seeds is None:
        return f"{word}, noise unknown"
    return f"{word} (one seed)" if difference.p_seeds is None else word


def markdown(made: Sequence[Row]) -> str:
    """The table."""
    lines = [cells(row) for row in made]
    head = list(lines[0])
    table = [head, ["---"] * len(head), *(list(line.values()) for line in lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in table) + "\n"


def as_csv(made: Sequence[Row]) -> str:
    """One line a setting and seed, with plain numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["setting", "seed", "miou", "miou_crf", "parameters", "images_per_second", "seconds", "run"]
    )
    for row in made:
        for r in row.results:
            trial = r.trial
            numbers = [r.miou, r.miou_crf, r.parameters, r.images_per_second, r.fit["wall_seconds"]]
            writer.writerow([row.label, trial.seed, *numbers, trial.fit.folder.name])
    return text.getvalue()
