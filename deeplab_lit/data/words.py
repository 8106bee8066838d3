"""Numbers and lists in sentences."""

from collections.abc import Sequence


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun: "1 image", "2,000 images"; "1 class", "2 classes" with its plural."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def some(names: Sequence[str]) -> str:
    """The first three of many names: "sky, road, car, …"."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
