"""The check of a data set before the first step: what is wrong is said with its file."""

from collections.abc import Iterator, Sequence
from typing import Literal

from deeplab_lit.data.dataset import INVALID, FileSplit, Split
from deeplab_lit.data.image import DataError
from deeplab_lit.data.summary import Summary, summarize

Check = Literal["quick", "full"]
QUICK = 16  # images that the quick check decodes
MASKS = 500  # masks that it reads at most, ...
PIXELS = 250_000_000  # ... of about so many pixels: some seconds on one core
SHOWN = 10  # problems listed before the rest is only counted


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
    pairs = range(number) if check == "full" else _spread(number, QUICK)
    found = _sound(split, name, num_workers, num_classes, pairs)
    if isinstance(split, FileSplit) and not found.whole:
        seen = found.remarks
        pixels = sum(width * height * often for (width, height), often in found.sizes.items())
        enough = max(QUICK, min(MASKS, PIXELS * len(pairs) // pixels))
        found = _sound(split, name, num_workers, num_classes, (), _spread(number, enough))
        if (found.pixels > 0).sum() < 2:
            found = _sound(split, name, num_workers, num_classes, (), range(number))
        found.remarks = list(dict.fromkeys([*seen, *found.remarks]))
    return found


def _spread(number: int, some: int) -> Sequence[int]:
    return range(number) if number <= some else [i * number // some for i in range(some)]


def _sound(
    split: Split,
    name: str,
    num_workers: int,
    num_classes: int,
    pairs: Sequence[int],
    masks: Sequence[int] = (),
) -> Summary:
    found = summarize(split, name, num_classes, num_workers, pairs, masks)
    if found.problems:
        checked = found.number + len(found.problems)
        raise DataError("\n".join(first_of(found.problems, name, checked)))
    return found


def first_of(found: list[str], name: str, checked: int) -> Iterator[str]:
    """The first of many problems as lines, under their number."""
    if len(found) > 1:
        yield f"{len(found)} of {checked} images checked in {name} have a problem:"
    yield from found[:SHOWN]
    if len(found) > SHOWN:
        yield f"… and {len(found) - SHOWN} more"
