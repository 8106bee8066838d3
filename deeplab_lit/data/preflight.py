"""The check of a data set before the first step: what is wrong is said with its file."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from deeplab_lit.bar import progress_bar
from deeplab_lit.data.dataset import Split
from deeplab_lit.data.image import DataError

Check = Literal["quick", "full"]
QUICK = 16  # images that the quick check decodes
SHOWN = 10  # problems listed before the rest is only counted


def preflight(split: Split, name: str, check: Check = "quick", num_workers: int = 4) -> None:
    """Decode images and masks and check that they pair up and hold valid values.

    Args:
        split: to be checked.
        name: how to call it in messages.
        check: "quick" reads 16 pairs spread over the split, "full" every one.
        num_workers: threads that read.

    Raises:
        DataError: the split is empty, or a list of what is wrong.
    """
    number = len(split.ids)
    if number == 0:
        raise DataError(f"{name} is empty")
    some = (i * number // QUICK for i in range(QUICK)) if number > QUICK else range(number)
    indices = range(number) if check == "full" else list(some)
    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        problems = pool.map(lambda index: _problem(split, index), indices)
        progress = progress_bar(
            problems,
            desc=f"checking {name}",
            total=len(indices),
            unit=" images",
            leave=False,
            disable=check == "quick",
        )
        found = [problem for problem in progress if problem]
    if found:
        raise DataError("\n".join(first_of(found, name, len(indices))))


def _problem(split: Split, index: int) -> str | None:
    try:
        split.read(index)
    except DataError as error:
        return str(error)
    return None


def first_of(found: list[str], name: str, checked: int) -> Iterator[str]:
    """The first of many problems as lines, under their number."""
    if len(found) > 1:
        yield f"{len(found)} of {checked} images checked in {name} have a problem:"
    yield from found[:SHOWN]
    if len(found) > SHOWN:
        yield f"… and {len(found) - SHOWN} more"
