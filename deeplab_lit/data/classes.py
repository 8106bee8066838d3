"""Lists of classes that people write, and the colors of classes that have none."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import read_lines
from deeplab_lit.text import plural
from deeplab_lit.types import Color

# names that mean: not to be trained on
VOID_NAMES = {"void", "ignore", "ignored", "unlabeled", "unlabelled", "undefined", "dontcare"}
MOST = 254  # classes: 255 is void, and 254 marks values that are none
RGB = r"(?P<red>\d+)[\s,;]+(?P<green>\d+)[\s,;]+(?P<blue>\d+)"
COLOR_LAST = re.compile(rf"(?P<name>\S.*?)[\s,;:]+{RGB}")
COLOR_FIRST = re.compile(rf"{RGB}[\s,;:]+(?P<name>\D.*)")
NUMBER_FIRST = re.compile(r"(?P<value>\d+)[\s,;:=]+(?P<name>[^\d\s].*)")
NUMBER_LAST = re.compile(r"(?P<name>\S.*?)[\s,;:]+(?P<value>\d+)")
VALUE = re.compile(r"(?P<name>\S.*?)\s*=\s*(?P<value>\d+)")


class ClassLine(NamedTuple):
    """A line of the list.

    Attributes:
        name: of the class.
        value: in the masks, 0…255. None where the list gives colors.
        color: in the masks, RGB. None where the list gives no colors.
        is_void: no class: it is called void, ignore or unlabeled in a list of colors or values.
    """

    name: str
    value: int | None
    color: Color | None = None
    is_void: bool = False


def read_class_list(path: Path) -> list[ClassLine]:
    """Return the classes of a list's lines, in one of three forms.

    `name` (the first line is value 0), `name = value`, or `name  red green blue` (also
    `red green blue  name`; commas count as spaces). Lines that begin with # are left out.

    Raises:
        DataError: no such text, an empty line between names, lines of different forms, a name,
            value or color twice, one above 255, or not 1 to 254 names.
    """
    lines = [(n, line) for n, line in enumerate(read_lines(path), 1) if not line.startswith("#")]
    named = [(n, line) for n, line in lines if line]
    _refuse_gaps(path, lines, named)
    read = [(n, line, _parsed(line, index)) for index, (n, line) in enumerate(named)]
    _refuse_mixture(path, read)
    if all(_form(line, entry) == "a name alone" for _, line, entry in read):
        _refuse_numbers(path, [line for _, line in named])
    names = [entry.name for _, _, entry in read]
    if not 0 < len(names) <= MOST or len(set(names)) < len(names):
        twice = next(
            (f"; {name} stands there twice" for name in names if names.count(name) > 1), ""
        )
        raise DataError(f"{path}: expected 1 to {MOST} different names, one a line{twice}")
    meant: dict[object, str] = {}
    for n, line, entry in read:
        if max(entry.color or (entry.value or 0,)) > 255:
            raise DataError(f"{path}: line {n} ({line!r}) has a number above 255")
        key = entry.color or entry.value
        if key in meant:
            raise DataError(f"{path}: {meant[key]} and {entry.name} have the same {key}")
        meant[key] = entry.name
    return [entry for _, _, entry in read]


def unknown_colors(bad: np.ndarray) -> str:
    """Say which colors of a mask no line of classes.txt has, most frequent first.

    Args:
        bad: their pixels, (N,) uint32 as 0xBBGGRR.
    """
    codes, counts = np.unique(bad, return_counts=True)
    often = sorted(zip(counts.tolist(), codes.tolist(), strict=True), reverse=True)
    first = ", ".join(
        f"({code & 255} {code >> 8 & 255} {code >> 16}) in {plural(number, 'pixel')}"
        for number, code in often[:4]
    )
    more = f" and {plural(len(codes) - 4, 'more color')}" if len(codes) > 4 else ""
    return (
        f"the color {first}{more}, which no line of classes.txt has. Add it there (a line "
        '"void red green blue" is no class), or save the mask without smoothing. If masks hold '
        "class indices, leave the colors out of classes.txt."
    )


def _parsed(line: str, index: int) -> ClassLine:
    if found := COLOR_LAST.fullmatch(line) or COLOR_FIRST.fullmatch(line):
        value, color = None, (int(found["red"]), int(found["green"]), int(found["blue"]))
    elif found := VALUE.fullmatch(line):
        value, color = int(found["value"]), None
    else:
        return ClassLine(line, index)
    return ClassLine(found["name"], value, color, _letters(found["name"]) in VOID_NAMES)


def means_void(name: str) -> bool:
    """Tell whether a class is called as if it were void: all of its name, or a word of it."""
    words = re.findall("[a-z]+", name.lower().replace("'", ""))
    return bool(VOID_NAMES & {*words, _letters(name)})


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _form(line: str, entry: ClassLine) -> str:
    return "a color" if entry.color else "a value" if line != entry.name else "a name alone"


def _refuse_gaps(path: Path, lines: list[tuple[int, str]], named: list[tuple[int, str]]) -> None:
    inner = [n for n, line in lines if not line and named and named[0][0] < n < named[-1][0]]
    if inner:
        raise DataError(
            f"{path}: line {inner[0]} is empty. Each line names a value, so a line that is left "
            "out would move all names after it: delete it, or write the name that belongs there."
        )


def _refuse_numbers(path: Path, lines: list[str]) -> None:
    """Refuse names with what look like values beside them, and would be other values by line.

    Names that differ in nothing but their numbers, as "grade 1" and "grade 2", are names.
    """
    for form in (NUMBER_FIRST, NUMBER_LAST):
        matches = [match for line in lines if (match := form.fullmatch(line))]
        if len(matches) < len(lines):
            continue
        values = [int(match["value"]) for match in matches]
        names = {match["name"] for match in matches}
        if len(names) == len(set(values)) == len(lines) and values != list(range(len(lines))):
            raise DataError(
                f"{path}: {lines[0]!r} is the name of value 0, by its line. If the numbers are the "
                "values in the masks, write `name = value`; else leave them out"
            )


def _refuse_mixture(path: Path, read: list[tuple[int, str, ClassLine]]) -> None:
    forms = [_form(line, entry) for _, line, entry in read]
    other = next((i for i, form in enumerate(forms) if form != forms[0]), None)
    if other is not None:
        (one, first, _), (n, line, _) = read[0], read[other]
        raise DataError(
            f"{path}: line {one} ({first!r}) has {forms[0]}, but line {n} ({line!r}) has "
            f"{forms[other]}: give every line the same form, either a name, or name = value, or "
            "name red green blue"
        )


def voc_color(index: int) -> Color:
    """Return the color of a class index (0…255) in PASCAL VOC's masks.

    The devkit's rule (VOClabelcolormap.m): the bits of the index, three at a time, go to the top
    bits of red, green and blue.
    """
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (index & 1) << shift
        green |= (index >> 1 & 1) << shift
        blue |= (index >> 2 & 1) << shift
        index >>= 3
    return red, green, blue


def voc_palette() -> list[int]:
    """Return VOC's colors of all indices from 0 to 255, as Pillow's `putpalette` takes them."""
    return [channel for index in range(256) for channel in voc_color(index)]
