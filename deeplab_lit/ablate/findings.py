"""What an ablation says, in sentences."""

from collections.abc import Sequence

from deeplab_lit.ablate.cells import interval, spread, verdict
from deeplab_lit.ablate.table import Row


def findings(rows: Sequence[Row]) -> list[str]:
    """The result, and what it must not be taken for.

    Args:
        rows: of the table, the baseline first if it is done.
    """
    if rows[0].results[0].run.setting == 0:
        mean = spread(rows[0].scores(rows[0].after_crf))
        when = " after the CRF" if rows[0].after_crf else ""
        has = "has a score that is not known" if mean == "–" else f"has mIoU {mean} %{when}"
        said = [f"The baseline, {_quoted(rows[0])}, {has}."]
    else:
        said = ["The baseline has no result, so nothing is compared."]
    compared = [row for row in rows if row.difference is not None]
    clear = [row for row in compared if row.difference.verdict in ("better", "worse")]
    said += [
        f"{_quoted(row)} is {verdict(row.difference)}: {interval(row.difference)} points."
        for row in sorted(clear, key=lambda row: -row.difference.mean)
    ]
    noise = [_quoted(row) for row in compared if row.difference.verdict == "within noise"]
    if noise:
        said.append(f"Within noise of the baseline: {', '.join(noise)}.")
    unknown: dict[str, list[str]] = {}
    for row in compared:
        if row.difference.verdict == "unknown":
            reason = verdict(row.difference).partition(": ")[2]
            named = f"{_quoted(row)} ({interval(row.difference)} points)"
            unknown.setdefault(reason, []).append(named)
    said += [f"Unknown, {reason}: {', '.join(names)}." for reason, names in unknown.items()]
    if min(len(row.results) for row in rows) < 2:
        said.append(
            "Some settings have one seed only: how much another seed would change is unknown."
        )
    if any(row.difference.low is None for row in compared):
        said.append("No counts of single images were found, so there are no intervals over images.")
    return said


def _quoted(row: Row) -> str:
    return f"“{row.label}”"
