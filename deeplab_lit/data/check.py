"""Sum up what a split holds, and check it before the first step.

Letters: C classes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from deeplab_lit.data.image import DataError, damage_kept
from deeplab_lit.data.split import INVALID, MaskContent, Split
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.text import plural, shared_end
from deeplab_lit.types import VOID, Color

Check = Literal["quick", "full"]
QUICK = 16  # images that the quick check decodes
MASKS = 500  # masks that it reads at most, ...
PIXELS = 250_000_000  # ... of about so many pixels: some seconds on one core
SHOWN = 10  # problems listed before the rest is only counted


@dataclass
class Summary:
    """The sum of what the masks of one split hold.

    Attributes:
        title: data set and split.
        sizes: (width, height) in pixels → number of images that could be read.
        pixels: (C,) int64, of each class.
        images: (C,) int64, those in which each class occurs.
        image_pixels: (C,) int64, all pixels, void too, of those images.
        void: pixels.
        all_void: images that hold nothing else.
        problems: a sentence for each image that cannot be used.
        total: images in the split, read or not.
        label_values: class index → its value in the mask files; empty where they hold colors.
        values: (256,) int64, pixels of each value in the mask files.
        with_255: masks in which the value 255 occurs beside others.
        colors: value in the files and its color in a palette → the first file with both.
        damage: sentences on images that are damaged, but could be read.
        notes: sentences on files that are passed over, turned or resized.
    """

    title: str
    pixels: np.ndarray
    images: np.ndarray
    image_pixels: np.ndarray
    void: int = 0
    all_void: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    total: int = 0
    label_values: dict[int, int] = field(default_factory=dict)
    values: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    with_255: int = 0
    colors: dict[tuple[int, Color], str] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def number(self) -> int:
        """Masks that could be read."""
        return sum(self.sizes.values())

    @property
    def affordable(self) -> int:
        """Masks of such sizes that can be read within some seconds on one core."""
        pixels = sum(width * height * often for (width, height), often in self.sizes.items())
        return max(QUICK, min(MASKS, PIXELS * self.number // max(pixels, 1)))

    @property
    def remarks(self) -> list[str]:
        """All sentences on files that are not wrong, but may not be meant."""
        return self.notes + self.damage

    @property
    def whole(self) -> bool:
        """Return whether every mask of the split has been read."""
        return self.number == self.total

    @property
    def shares(self) -> np.ndarray:
        """Share of each class in the pixels that are not void, (C,) in 0…1."""
        return self.pixels / max(self.pixels.sum(), 1)

    @property
    def void_share(self) -> float:
        """Share of void in all pixels, 0…1."""
        return self.void / max(self.pixels.sum() + self.void, 1)


def summarize(split: Split, title: str, num_classes: int, num_workers: int) -> Summary:
    """Read all images and masks of a split.

    Args:
        split: to be read.
        title: how to call it.
        num_classes: C.
        num_workers: threads that read.
    """
    everything = range(len(split.ids))
    summary = _summarize(split, title, num_classes, num_workers, everything)
    summary.notes = split.remarks(everything)
    return summary


def _summarize(
    split: Split,
    title: str,
    num_classes: int,
    num_workers: int,
    pairs: Sequence[int],
    masks: Sequence[int] = (),
) -> Summary:
    """Read the pairs of some indices, and of others the masks alone; notes are left empty."""
    pixels, images, image_pixels = np.zeros((3, num_classes), np.int64)
    summary = Summary(title, pixels, images, image_pixels, total=len(split.ids))
    summary.label_values = split.label_values(num_classes)
    if not split.ids:
        summary.problems.append(f"{title} is empty")
    with_image = set(pairs)
    indices = sorted(with_image | set(masks))
    with damage_kept(summary.damage), ThreadPoolExecutor(max(num_workers, 1)) as pool:
        read = pool.map(lambda index: _read(split, index, index in with_image), indices)
        for found in progress_bar(
            read,
            desc=f"checking {title}",
            total=len(indices),
            unit=" images",
            leave=False,
            delay=1,  # of the few that the quick check reads, only where reading is slow
        ):
            if isinstance(found, str):
                summary.problems.append(found)
                continue
            summary.sizes[found.size] += 1
            summary.pixels += found.indices[:num_classes]
            there = found.indices[:num_classes] > 0
            summary.images += there
            summary.image_pixels += there * found.indices.sum()
            summary.void += int(found.indices[VOID])
            summary.all_void += int(found.indices[VOID] == found.indices.sum())
            summary.values += found.values
            summary.with_255 += int(0 < found.values[255] < found.values.sum())
            for entry in found.colors.items():
                summary.colors.setdefault(entry, found.source)
    return summary


def preflight(
    split: Split,
    name: str,
    check: Check = "quick",
    num_workers: int = 4,
    num_classes: int = INVALID,
) -> Summary:
    """Decode images and masks and check that they pair up and hold valid values.

    Args:
        split: to be checked.
        name: how to call it in messages.
        check: "full" reads every pair. "quick" reads 16 spread over the split, and of mask files
            500, or fewer where they are large; all of them where those hold less than two classes,
            since that is what masks look like whose values are not those of the classes.
        num_workers: threads that read.
        num_classes: C.

    Returns:
        What has been read.

    Raises:
        DataError: the split is empty, or a list of what is wrong.
    """
    number = len(split.ids)
    if number == 0:
        raise DataError(f"{name} is empty")
    looked_at = pairs = range(number) if check == "full" else spread(number, QUICK)
    found = _sound(split, name, num_workers, num_classes, pairs)
    if split.has_mask_files and not found.whole:
        damage = found.damage
        masks = spread(number, found.affordable)
        found = _sound(split, name, num_workers, num_classes, (), masks)
        if (found.pixels > 0).sum() < 2:
            masks = range(number)
            found = _sound(split, name, num_workers, num_classes, (), masks)
        found.damage, looked_at = damage, sorted({*pairs, *masks})
    found.notes = split.remarks(looked_at)
    return found


def spread(number: int, some: int) -> Sequence[int]:
    """Return indices below `number`, all or `some` at equal distances."""
    return range(number) if number <= some else [i * number // some for i in range(some)]


def _sound(
    split: Split,
    name: str,
    num_workers: int,
    num_classes: int,
    pairs: Sequence[int],
    masks: Sequence[int] = (),
) -> Summary:
    found = _summarize(split, name, num_classes, num_workers, pairs, masks)
    if found.problems:
        checked = found.number + len(found.problems)
        raise DataError("\n".join(first_of(found.problems, name, checked)))
    return found


def first_of(found: list[str], name: str, checked: int) -> Iterator[str]:
    """Return the first of many problems as lines, under their number; once what ends them all."""
    end = shared_end(found) if len(found) > 1 else ""
    if len(found) > 1:
        yield f"{len(found)} of {checked} images checked in {name} have a problem:"
    yield from (problem.removesuffix(end).strip() for problem in found[:SHOWN])
    if len(found) > SHOWN:
        yield f"… and {len(found) - SHOWN} more"
    if end:
        yield end


def table(summaries: Sequence[Summary], classes: Sequence[str]) -> str:
    """Return the summaries as text: a line each, then a row for each class."""
    lines = []
    for summary in summaries:
        sizes, number = summary.sizes, summary.number
        lines.append(
            f"{summary.title}: {_looked_at(summary)}, "
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
                f"{_size(usual)} ({plural(often, 'image')})"
            )
    width = max(map(len, classes))
    columns = [f"{summary.title.split(',')[0].split()[-1]:>22}" for summary in summaries]
    lines += ["", " " * width + "".join(columns)]
    lines.append(" " * width + f"{'pixels':>11}{'images':>11}" * len(summaries))
    for index, name in enumerate(classes):
        cells = (f"{s.shares[index]:>11.3%}{s.images[index]:>11,}" for s in summaries)
        lines.append(f"{name:<{width}}" + "".join(cells))
    return "\n".join(lines)


def _read(split: Split, index: int, image: bool) -> MaskContent | str:
    try:
        return split.content(index, image=image)
    except DataError as error:
        return str(error)


def _looked_at(summary: Summary) -> str:
    if summary.whole or summary.problems:
        return plural(summary.number, "image")
    return f"{summary.number:,} of {plural(summary.total, 'image')} looked at"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
