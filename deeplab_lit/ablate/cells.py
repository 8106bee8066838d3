"""The table of an ablation in the paper's form: its cells in words, as Markdown and as CSV."""

import csv
import io
import math
import statistics
from collections.abc import Sequence

import numpy as np

from deeplab_lit.ablate.bootstrap import Difference
from deeplab_lit.ablate.table import Row


def cells(row: Row) -> dict[str, str]:
    """A row as text; "–" for what was not measured."""
    speed, size = row.images_per_second(), row.parameters()
    return {
        row.option: row.label,
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
    """Mean ± standard deviation over seeds, in percent; “–” where one is missing or not known."""
    if not scores or np.isnan(scores).any():
        return "–"
    mean = f"{100 * np.mean(scores):.2f}"
    return f"{mean} ± {100 * statistics.stdev(scores):.2f}" if len(scores) > 1 else mean


def interval(difference: Difference | None) -> str:
    """A difference in points, with its ends; “–” where there is none."""
    if difference is None or math.isnan(difference.mean):
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
    """What the difference to the baseline is worth, and why where that is not known."""
    if difference is None:
        return ""
    if difference.verdict != "unknown":
        return difference.verdict
    return f"unknown: {difference.missing}"


def markdown(made: Sequence[Row]) -> str:
    """The table."""
    lines = [cells(row) for row in made]
    head = list(lines[0])
    table = [head, ["---"] * len(head), *(list(line.values()) for line in lines)]
    table = [[" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in table]
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
            run = r.run
            numbers = [r.miou, r.miou_crf, r.parameters, r.images_per_second, r.fit["wall_seconds"]]
            writer.writerow([row.label, run.seed, *numbers, run.fit.folder.name])
    return text.getvalue()
