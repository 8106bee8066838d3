"""Numbers and lists in sentences."""

from collections.abc import Sequence


def plural(number: int, noun: str) -> str:
    """A number and its noun: "1 image", "2,000 images", "2 classes"."""
    plural = "es" if noun.endswith(("s", "ch")) else "s"
    return f"{number:,} {noun}" + (plural if number != 1 else "")


def first_few(names: Sequence[str]) -> str:
    """The first three of many names: "sky, road, car, …"."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
