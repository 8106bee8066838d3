"""Tables of scores, from what results.json holds: lines of them, and how the screen shows these."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from deeplab_lit.scoring.metric import SCALARS
from deeplab_lit.scoring.trimap import NAMES

CITYSCAPES = {
    "iou_category": "IoU of categories",
    "iiou": "iIoU of classes",
    "iiou_category": "iIoU of categories",
}
BANDS = (1, 2, 5, 10, 20, 40)  # pixels, of the trimap's many
NO_INSTANCES = "no iIoU: images without *_gtFine_instanceIds.png"


class Line(NamedTuple):
    """A line of a table.

    Attributes:
        name: of a class or score.
        values: in percent, "–" for what is absent; with the CRF also after it, and the gain.
        over: of a mean that is not over all classes: over how many; else "".
    """

    name: str
    values: list[str]
    over: str = ""


class ScoreLines(NamedTuple):
    """The scores of a validation.

    Attributes:
        classes: IoU of each.
        totals: means, and accuracies.
        metrics: numbers of observers, as they are.
        notes: which classes the subsets leave out, and by which rule they are scored.
    """

    classes: list[Line]
    totals: list[Line]
    metrics: list[Line]
    notes: list[str]


def score_lines(scores: dict[str, Any]) -> ScoreLines:
    """Return per-class IoU and totals in percent.

    Args:
        scores: as results.json holds them.
    """
    titles, parts = _totals(scores)
    columns = [_column(scores, titles)]
    if "crf" in scores:
        columns.append(_column(scores["crf"], titles))
        columns.append([_difference(*pair) for pair in zip(*columns, strict=True)])
    rows = [list(row) for row in zip(*columns, strict=True)]
    number = len(scores["iou"])
    totals = zip(titles.values(), rows[number:], strict=True)
    return ScoreLines(
        [Line(*line) for line in zip(scores["iou"], rows[:number], strict=True)],
        [Line(name, row, _over(parts[name]) if name in parts else "") for name, row in totals],
        [
            Line(name, ["–" if value is None else f"{value:.4g}"])
            for name, value in scores.get("metrics", {}).items()
        ],
        _subsets_in_words(scores),
    )


def score_table(scores: dict[str, Any]) -> str:
    """Return per-class IoU and totals in percent; "–" for a class that is absent.

    Where one is, the line of the mIoU says over how many classes it is the mean. With scores after
    the CRF there are two more columns: those, and the gain. Metrics of observers come last; then
    which classes the subsets leave out, and by which rule they are scored.

    Args:
        scores: as results.json holds them.
    """
    table = score_lines(scores)
    width = max(len(line.name) for line in (*table.classes, *table.totals, *table.metrics))
    columns = 3 if "crf" in scores else 1
    return "\n".join(
        [
            *([f"  {'':<{width}}  before   after    gain"] if "crf" in scores else []),
            *(_on_screen(line, width) for line in table.classes),
            "  " + "─" * (width + 8 * columns),
            *(_on_screen(line, width) for line in (*table.totals, *table.metrics)),
            *(f"  {note}" for note in table.notes),
        ]
    )


def _on_screen(line: Line, width: int) -> str:
    values = "".join(f" {value:>7}" for value in line.values)
    return f"  {line.name:<{width}}{values}" + (f"  {line.over}" if line.over else "")


def _totals(scores: dict[str, Any]) -> tuple[dict[str, str], dict[str, dict[str, float | None]]]:
    """Return the totals and their titles; and, by its title, what each mean IoU is the mean of."""
    of_subsets = scores.get("subsets", {}).get("iou", {})
    titles = {"miou": SCALARS["miou"].title}
    titles |= {f"miou{name}": f"{SCALARS['miou'].title}{name}" for name in of_subsets}
    means = dict(zip(titles.values(), [scores["iou"], *of_subsets.values()], strict=True))
    return titles | {name: scalar.title for name, scalar in SCALARS.items()}, means


def _over(iou: dict[str, float | None]) -> str:
    present = sum(value is not None for value in iou.values())
    return f"over {present} of {len(iou)} classes" if present < len(iou) else ""


def _subsets_in_words(scores: dict[str, Any]) -> list[str]:
    """Say which classes each subset leaves out, and what becomes of their pixels."""
    if "subsets" not in scores:
        return []
    rule, iou = scores["subsets"]["rule"], scores["subsets"]["iou"]
    lines = [
        f"mIoU{name} is without {', '.join(n for n in scores['iou'] if n not in members)}"
        for name, members in iou.items()
    ]
    widest = {name for members in iou.values() for name in members}
    others = ", ".join(name for name in scores["iou"] if name not in widest)
    what = {
        "rows": f"a pixel of {others} counts against the class that it is taken for",
        "pixels": f"pixels of {others} count nowhere",
    }
    return [*lines, f"by --eval.subsets {rule}: {what[rule]}"]


def _column(scores: dict[str, Any], titles: Iterable[str]) -> list[str]:
    values = [*scores["iou"].values(), *(scores.get(name) for name in titles)]
    return [_percent(value) for value in values]


def _difference(before: str, after: str) -> str:
    return "–" if "–" in (before, after) else f"{float(after) - float(before):+.2f}"


def cityscapes_lines(results: dict[str, Any]) -> list[tuple[Line, list[Line]]]:
    """Return Cityscapes' further scores in percent: each mean, with the classes it is the mean of.

    Args:
        results: as `CityscapesScores` returns them.
    """
    columns = [results] + ([results["crf"]] if "crf" in results else [])
    return [
        (
            Line(f"{title}, mean", [_percent(column[f"{key}_mean"]) for column in columns]),
            [
                Line(name, [_percent(column[key][name]) for column in columns])
                for name in results[key]
            ],
        )
        for key, title in CITYSCAPES.items()
        if key in results
    ]


def cityscapes_table(results: dict[str, Any]) -> str:
    """Return Cityscapes' further scores in percent: means, and each class and category.

    Args:
        results: as `CityscapesScores` returns them.
    """
    lines = [] if "iiou" in results else [f"  {NO_INSTANCES}"]
    for mean, parts in cityscapes_lines(results):
        named = [(f"  {mean.name}", mean), *((f"    {part.name}", part) for part in parts)]
        lines += [f"{n:<28}" + "".join(f"{v:>8}" for v in line.values) for n, line in named]
    return "\n".join(lines)


def trimap_lines(curves: dict[str, Any], widths: Sequence[int]) -> list[Line]:
    """Return the mIoU in percent of the bands of some widths, before and after the CRF.

    Args:
        curves: as `Trimap` returns them.
        widths: in pixels.
    """
    places = [curves["width"].index(width) for width in widths]
    return [
        Line(title, [_percent(curves[name][place]) for place in places])
        for name, title in NAMES.items()
        if name in curves
    ]


def trimap_table(curves: dict[str, Any], widths: Sequence[int] = BANDS) -> str:
    """Return the mIoU in percent of the bands of some widths.

    Args:
        curves: as `Trimap` returns them.
        widths: in pixels.
    """
    lines = ["  pixels from a border  " + "".join(f"{f'≤ {width}':>7}" for width in widths)]
    for name, values, _ in trimap_lines(curves, widths):
        lines.append(f"  {name:<22}{''.join(f'{value:>7}' for value in values)}")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
