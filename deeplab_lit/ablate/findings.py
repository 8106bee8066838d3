"""What an ablation says, in sentences."""

from collections.abc import Sequence

from deeplab_lit.ablate.table import Row, interval, spread, verdict


def findings(rows: Sequence[Row], missing: int) -> list[str]:
    """The result, and what it must not be taken for.

    Args:
        rows: of the table, the baseline first if it is done.
        missing: how many trials are not done.
    """
    if rows[0].results[0].trial.setting == 0:
        mean = spread(rows[0].scores(rows[0].after_crf))
        when = " after the CRF" if rows[0].after_crf else ""
        said = [f"The baseline, {_quoted(rows[0])}, has mIoU {mean} %{when}."]
    else:
        said = ["The baseline is not done yet, so nothing is compared."]
    compared = [row for row in rows if row.difference is not None]
    clear = [row for row in compared if not row.difference.noise]
    said += [
        f"{_quoted(row)} is {verdict(row.difference)}: {interval(row.difference)} points."
        for row in sorted(clear, key=lambda row: -row.difference.mean)
    ]
    noise = [_quoted(row) for row in compared if row.difference.noise]
    if noise:
        said.append(f"Within noise of the baseline: {', '.join(noise)}.")
    if min(len(row.results) for row in rows) < 2:
        said.append(
            "Some settings have one seed only: how much another seed would change is unknown."
        )
    if any(row.difference.low is None for row in compared):
        said.append("No counts of single images were found, so there are no intervals over images.")
    if missing:
        trials = "1 trial is" if missing == 1 else f"{missing} trials are"
        said.append(f"{trials} not done yet and left out.")
    return said


def _quoted(row: Row) -> str:
    return f"“{row.label}”"
