"""Sentences: numbers and lists in them, and where they are printed."""

from collections.abc import Sequence


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: "1 image", "2,000 images", "2 classes"."""
    plural = "es" if noun.endswith(("s", "ch")) else "s"
    return f"{number:,} {noun}" + (plural if number != 1 else "")


def first_few(names: Sequence[str]) -> str:
    """Return the first three of many names: "sky, road, car, …"."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def say(*lines: str) -> None:
    """Print lines on stdout, on the first process of a training only.

    Lightning sets the rank; where it was never imported, there is one process.
    """
    from lightning_utilities.core.rank_zero import rank_zero_only  # slow for a list of commands

    if getattr(rank_zero_only, "rank", 0) == 0:
        print("\n".join(lines), flush=True)
