"""Search for CRF parameters on the paper's grid, coarse to fine.

DeepLabv2, Sec. 4.1.1: w2 = 3 and σγ = 3 are fixed; w1, σα and σβ are cross-validated on 100 images,
first over w1 ∈ 3:6, σα ∈ 30:10:100, σβ ∈ 3:6, then in smaller steps around the best.
"""

import csv
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from deeplab_lit.atomic import atomic_write
from deeplab_lit.crf.parameters import CRFError

FEW = 20  # on fewer images the interval itself is unreliable


class Point(NamedTuple):
    """A setting of the search: w1, σα in pixels, σβ in steps of color."""

    bi_w: float
    bi_xy_std: float
    bi_rgb_std: float


COLUMNS = [*Point._fields, "miou"]  # of the scores' file
COARSE = (
    (3.0, 4.0, 5.0, 6.0),
    tuple(range(30, 101, 10)),
    (3.0, 4.0, 5.0, 6.0),
)
STEPS = Point(0.5, 5.0, 0.5)  # of the second round: half of the first's


def coarse() -> list[Point]:
    """Return the settings of the first round, 128."""
    return [Point(*map(float, values)) for values in product(*COARSE)]


def fine(best: Point) -> list[Point]:
    """Return the second round: half a step to each side of the best; 27 settings, it included."""
    around = [[v - step, v, v + step] for v, step in zip(best, STEPS, strict=True)]
    return [Point(*values) for values in product(*around) if min(values) > 0]


def at_edge(best: Point) -> list[str]:
    """Return the parameters whose best value is at an end of the first round's range, or beyond."""
    values = zip(Point._fields, best, COARSE, strict=True)
    return [name for name, value, tried in values if not tried[0] < value < tried[-1]]


def search(
    score: Callable[[Point], float], known: dict[Point, float]
) -> Iterator[tuple[Point, float, int]]:
    """Score the coarse grid, then the fine one around its best.

    Args:
        score: mIoU of a setting.
        known: scores of an earlier, interrupted search; they are not computed again.

    Yields:
        Setting, its mIoU, and how many of the round are left.
    """
    scores: dict[Point, float] = {}
    for settings in (coarse, lambda: fine(max(scores, key=scores.__getitem__))):
        todo = [point for point in settings() if point not in scores]
        for i, point in enumerate(todo):
            scores[point] = known[point] if point in known else score(point)
            yield point, scores[point], len(todo) - i - 1


def read_scores(path: Path) -> dict[Point, float]:
    """Read the scores of an earlier search: setting → mIoU; a last line cut short does not count.

    Raises:
        CRFError: the file holds something else.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(line for line in file if line.endswith("\n")))
        if rows and rows[0] != COLUMNS:
            raise ValueError(f"its columns are {', '.join(rows[0])}")
        return {Point(*map(float, row[:-1])): float(row[-1]) for row in rows[1:]}
    except (ValueError, TypeError, csv.Error) as error:
        raise CRFError(
            f"{path} does not hold what a search has found ({error}): remove it, and the settings "
            "are scored anew"
        ) from error


def write_scores(scores: dict[Point, float], path: Path) -> None:
    """Write the scores of a search, an atomic write."""
    with atomic_write(path) as place, place.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *([*point, miou] for point, miou in scores.items())])


def verdict(what: str, low: float, high: float, images: int) -> str:
    """Put a setting's gain over the network alone into words no stronger than its interval.

    Args:
        what: the setting, in words.
        low: lower end of the gain's 95 % interval over images.
        high: its upper end.
        images: how many.
    """
    number = "1 image" if images == 1 else f"{images:,} images"
    if low <= 0 <= high:
        return f"{what}: the interval contains 0, so {number} cannot tell whether it helps."
    if images < FEW:
        return (
            f"{what}: {'helps' if low > 0 else 'harms'} on {number}, too few to say so of others."
        )
    if low > 0:
        return f"{what}: better than the network alone."
    return f"{what}: worse than the network alone, so leave this CRF out."
