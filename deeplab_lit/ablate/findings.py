"""What an ablation says, in sentences."""

import math
from collections.abc import Sequence

from deeplab_lit.ablate.cells import interval, spread, verdict
from deeplab_lit.ablate.table import Row
from deeplab_lit.text import plural

FEW_IMAGES = 30  # below, the bootstrap's percentiles lie visibly too close together


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
            named = f"{_quoted(row)} ({interval(row.difference)} points)"
            unknown.setdefault(row.difference.missing, []).append(named)
    said += [f"Unknown, {reason}: {', '.join(names)}." for reason, names in unknown.items()]
    return said + _limits(rows, compared, some_noise=bool(noise))


def _limits(rows: Sequence[Row], compared: Sequence[Row], *, some_noise: bool) -> list[str]:
    """How much seeds and images can say."""
    said = []
    seeds = [len(row.results) for row in rows]
    if min(seeds) < 2:
        whose = "All settings have" if max(seeds) < 2 else "Some settings have"
        said.append(
            f"{whose} one seed only: how much another seed would change is unknown, and an "
            "interval over images does not say it."
        )
    elif min(seeds) == 2 and some_noise:
        said.append(
            "Two seeds tell only large differences from noise: “within noise” is not “equal”."
        )
    images = {len(r.images["ids"]) for row in rows for r in row.results if "ids" in r.images}
    if images and min(images) < FEW_IMAGES:
        said.append(
            f"The scores are of {plural(min(images), 'validation image')}: an interval over so "
            "few is narrower than it should be."
        )
    ious = [r.scored(row.after_crf)["iou"].values() for row in rows for r in row.results]
    fewest = min(sum(iou is not None for iou in own) for own in ious)
    if 0 < fewest < len(ious[0]):
        said.append(
            f"mIoU is the mean over {fewest} of {plural(len(ious[0]), 'class')}: the others are "
            "neither in the truth nor predicted, at least in one run."
        )
    known = [row for row in compared if not math.isnan(row.difference.mean)]
    without = [_quoted(row) for row in known if row.difference.low is None]
    if without:
        said.append(
            f"There is no interval over images for {', '.join(without)}: that takes counts "
            "(images.npz) of the same images, two or more, from all seeds."
        )
    return said


def _quoted(row: Row) -> str:
    return f"“{row.label}”"
