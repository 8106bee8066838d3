"""The table of scores on the screen."""

from typing import Any


def table(scores: dict[str, Any]) -> str:
    """Per-class IoU and the totals in percent, as text; "–" for a class that is absent.

    Where one is, the line of the mIoU says over how many classes it is the mean.
    With scores after the CRF there are two more columns: those, and the gain.
    """
    columns = [_column(scores)]
    lines = []
    if "crf" in scores:
        columns.append(_column(scores["crf"]))
        columns.append([_difference(*pair) for pair in zip(*columns, strict=True)])
    names = [*scores["iou"], "mIoU", "pixel accuracy", "mean accuracy", "fw iou"]
    width = max(map(len, names))
    if "crf" in scores:
        lines.append(f"  {'':<{width}}  before   after    gain")
    for i, name in enumerate(names):
        if i == len(scores["iou"]):
            lines.append("  " + "─" * (width + 8 * len(columns)))
        values = "".join(f" {column[i]:>7}" for column in columns)
        lines.append(f"  {name:<{width}}{values}{_over(scores) if name == 'mIoU' else ''}")
    return "\n".join(lines)


def _over(scores: dict[str, Any]) -> str:
    known = sum(value is not None for value in scores["iou"].values())
    number = len(scores["iou"])
    return f"  over {known} of {number} classes" if known < number else ""


def _column(scores: dict[str, Any]) -> list[str]:
    keys = ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou")
    values = [*scores["iou"].values(), *(scores[key] for key in keys)]
    return ["–" if value is None else f"{100 * value:.2f}" for value in values]


def _difference(before: str, after: str) -> str:
    return "–" if "–" in (before, after) else f"{float(after) - float(before):+.2f}"
