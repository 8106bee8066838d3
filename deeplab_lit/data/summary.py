"""What a split holds: images, sizes, pixels of each class, and what cannot be read.

Letters: C classes.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from deeplab_lit.bar import progress_bar
from deeplab_lit.data.dataset import Split
from deeplab_lit.data.image import VOID, DataError
from deeplab_lit.data.words import counted


@dataclass
class Summary:
    """Of one split.

    Attributes:
        title: data set and split.
        sizes: (width, height) in pixels → number of images that could be read.
        pixels: (C,) int64, of each class.
        images: (C,) int64, those in which each class occurs.
        void: pixels.
        all_void: images that hold nothing else.
        problems: a sentence for each image that cannot be used.
    """

    title: str
    pixels: np.ndarray
    images: np.ndarray
    void: int = 0
    all_void: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def shares(self) -> np.ndarray:
        """Share of each class in the pixels that are not void, (C,) in 0…1."""
        return self.pixels / max(self.pixels.sum(), 1)

    @property
    def void_share(self) -> float:
        """Share of void in all pixels, 0…1."""
        return self.void / max(self.pixels.sum() + self.void, 1)


def summarise(split: Split, title: str, num_classes: int, num_workers: int) -> Summary:
    """Read every image and mask of a split.

    Args:
        split: to be read.
        title: how to call it.
        num_classes: C.
        num_workers: threads that read.
    """
    zeros = np.zeros(num_classes, np.int64)
    summary = Summary(title, zeros, zeros.copy())
    if not split.ids:
        summary.problems.append(f"{title} is empty")
    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        read = pool.map(lambda index: _read(split, index), range(len(split.ids)))
        for found in progress_bar(
            read, desc=f"checking {title}", total=len(split.ids), unit=" images", leave=False
        ):
            if isinstance(found, str):
                summary.problems.append(found)
                continue
            size, counts = found
            summary.sizes[size] += 1
            summary.pixels += counts[:num_classes]
            summary.images += counts[:num_classes] > 0
            summary.void += int(counts[VOID])
            summary.all_void += int(counts[VOID] == counts.sum())
    return summary


def table(summaries: Sequence[Summary], classes: Sequence[str]) -> str:
    """The summaries as text: a line each, then a row for each class."""
    lines = []
    for summary in summaries:
        sizes, number = summary.sizes, sum(summary.sizes.values())
        lines.append(
            f"{summary.title}: {counted(number, 'image')}, "
            f"{summary.void_share:.2%} of {'its' if number == 1 else 'their'} pixels void"
            + (f", {summary.all_void:,} of them nothing but void" if summary.all_void else "")
        )
        if len(sizes) == 1:
            lines.append(f"  all of {_size(*sizes)}")
        elif sizes:
            ((usual, often),) = sizes.most_common(1)
            areas = sorted(sizes, key=lambda size: size[0] * size[1])
            lines.append(
                f"  {len(sizes):,} sizes, {_size(areas[0])} to {_size(areas[-1])}; most often "
                f"{_size(usual)} ({counted(often, 'image')})"
            )
    width = max(map(len, classes))
    columns = [f"{summary.title.split(',')[0].split()[-1]:>22}" for summary in summaries]
    lines += ["", " " * width + "".join(columns)]
    lines.append(" " * width + f"{'pixels':>11}{'images':>11}" * len(summaries))
    for index, name in enumerate(classes):
        cells = (f"{s.shares[index]:>11.3%}{s.images[index]:>11,}" for s in summaries)
        lines.append(f"{name:<{width}}" + "".join(cells))
    return "\n".join(lines)


def _read(split: Split, index: int) -> tuple[tuple[int, int], np.ndarray] | str:
    try:
        _, mask = split.read(index)
    except DataError as error:
        return str(error)
    return mask.shape[::-1], np.bincount(mask.ravel(), minlength=256)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
