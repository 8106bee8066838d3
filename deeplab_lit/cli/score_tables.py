"""Tables of scores for the screen, from what results.json holds."""

from collections.abc import Iterable, Sequence
from typing import Any

from deeplab_lit.scoring.metric import SCALARS
from deeplab_lit.scoring.trimap import NAMES


def score_table(scores: dict[str, Any]) -> str:
    """Return per-class IoU and totals in percent; "–" for a class that is absent.

    Where one is, the line of the mIoU says over how many classes it is the mean. With scores after
    the CRF there are two more columns: those, and the gain. Metrics of observers come last; then
    which classes the subsets leave out, and by which rule they are scored.

    Args:
        scores: as results.json holds them.
    """
    titles, parts = _totals(scores)
    columns = [_column(scores, titles)]
    lines = []
    if "crf" in scores:
        columns.append(_column(scores["crf"], titles))
        columns.append([_difference(*pair) for pair in zip(*columns, strict=True)])
    metrics = scores.get("metrics", {})
    names = [*scores["iou"], *titles.values()]
    width = max(map(len, [*names, *metrics]))
    if "crf" in scores:
        lines.append(f"  {'':<{width}}  before   after    gain")
    for i, name in enumerate(names):
        if i == len(scores["iou"]):
            lines.append("  " + "─" * (width + 8 * len(columns)))
        values = "".join(f" {column[i]:>7}" for column in columns)
        over = _over(parts[name]) if name in parts and i >= len(scores["iou"]) else ""
        lines.append(f"  {name:<{width}}{values}{over}")
    for name, value in metrics.items():
        lines.append(f"  {name:<{width}} {'–' if value is None else f'{value:.4g}':>7}")
    return "\n".join([*lines, *_subsets_in_words(scores)])


def _totals(scores: dict[str, Any]) -> tuple[dict[str, str], dict[str, dict[str, float | None]]]:
    """Return the totals and their titles; and, by its title, what each mean IoU is the mean of."""
    of_subsets = scores.get("subsets", {}).get("iou", {})
    titles = {"miou": SCALARS["miou"].title}
    titles |= {f"miou{name}": f"{SCALARS['miou'].title}{name}" for name in of_subsets}
    means = dict(zip(titles.values(), [scores["iou"], *of_subsets.values()], strict=True))
    return titles | {name: scalar.title for name, scalar in SCALARS.items()}, means


def _over(iou: dict[str, float | None]) -> str:
    present = sum(value is not None for value in iou.values())
    return f"  over {present} of {len(iou)} classes" if present < len(iou) else ""


def _subsets_in_words(scores: dict[str, Any]) -> list[str]:
    """Say which classes each subset leaves out, and what becomes of their pixels."""
    if "subsets" not in scores:
        return []
    rule, iou = scores["subsets"]["rule"], scores["subsets"]["iou"]
    lines = [
        f"  mIoU{name} is without {', '.join(n for n in scores['iou'] if n not in members)}"
        for name, members in iou.items()
    ]
    widest = {name for members in iou.values() for name in members}
    others = ", ".join(name for name in scores["iou"] if name not in widest)
    what = {
        "rows": f"a pixel of {others} counts against the class that it is taken for",
        "pixels": f"pixels of {others} count nowhere",
    }
    return [*lines, f"  by --eval.subsets {rule}: {what[rule]}"]


def _column(scores: dict[str, Any], titles: Iterable[str]) -> list[str]:
    values = [*scores["iou"].values(), *(scores.get(name) for name in titles)]
    return ["–" if value is None else f"{100 * value:.2f}" for value in values]


def _difference(before: str, after: str) -> str:
    return "–" if "–" in (before, after) else f"{float(after) - float(before):+.2f}"


def cityscapes_table(results: dict[str, Any]) -> str:
    """Return Cityscapes' further scores in percent: means, and each class and category.

    Args:
        results: as `CityscapesScores` returns them.
    """
    titles = {
        "iou_category": "IoU of categories",
        "iiou": "iIoU of classes",
        "iiou_category": "iIoU of categories",
    }
    columns = [results] + ([results["crf"]] if "crf" in results else [])
    lines = [] if "iiou" in results else ["  no iIoU: images without *_gtFine_instanceIds.png"]
    for key, title in titles.items():
        if key in results:
            lines.append(_line(f"  {title}, mean", [column[f"{key}_mean"] for column in columns]))
            lines += [
                _line(f"    {name}", [column[key][name] for column in columns])
                for name in results[key]
            ]
    return "\n".join(lines)


def _line(title: str, values: list[float | None]) -> str:
    numbers = ("–" if value is None else f"{100 * value:.2f}" for value in values)
    return f"{title:<28}" + "".join(f"{value:>8}" for value in numbers)


def trimap_table(curves: dict[str, Any], widths: Sequence[int] = (1, 2, 5, 10, 20, 40)) -> str:
    """Return the mIoU in percent of the bands of some widths.

    Args:
        curves: as `Trimap` returns them.
        widths: in pixels.
    """
    lines = ["  pixels from a border  " + "".join(f"{f'≤ {width}':>7}" for width in widths)]
    for name in [name for name in NAMES if name in curves]:
        values = [curves[name][curves["width"].index(width)] for width in widths]
        cells = (f"{'–':>7}" if value is None else f"{100 * value:7.2f}" for value in values)
        lines.append(f"  {NAMES[name]:<22}{''.join(cells)}")
    return "\n".join(lines)
