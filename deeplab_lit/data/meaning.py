"""Do masks mean what they seem? What their values and palettes prove wrong, and what they suggest.

Letters: C classes.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import gcd
from typing import NamedTuple

import numpy as np

from deeplab_lit.data.check import Summary
from deeplab_lit.data.classes import means_void
from deeplab_lit.data.image import DataError
from deeplab_lit.data.split import listed
from deeplab_lit.text import plural
from deeplab_lit.types import VOID, Classes, Color

ENOUGH = 20  # masks, of more that there are, that say something about what is in none
NAMED = 20  # classes that a sentence names before the rest is only counted
Colors = Mapping[tuple[int, Color], str]  # value and its color in a palette → where


class Finding(NamedTuple):
    """Something that masks have been found to be.

    Attributes:
        sentence: for the user.
        proved: the masks cannot be used so; else it only looks as if something were wrong.
    """

    sentence: str
    proved: bool


def refuse_proved(findings: Sequence[Finding]) -> list[str]:
    """Return the sentences of what is not proved.

    Raises:
        DataError: the sentences of what is.
    """
    if proved := [finding.sentence for finding in findings if finding.proved]:
        raise DataError("\n".join(proved))
    return [finding.sentence for finding in findings]


def judge_classes(
    found: Summary,
    classes: Sequence[str],
    *,
    training: bool,
    never: Collection[str] = (),
    selected: bool = False,
) -> Iterator[Finding]:
    """Say which classes a split lacks, and whether enough is left to learn or to score.

    Args:
        found: in the masks of the split.
        classes: their names, C of them.
        training: the split is trained on, not scored.
        never: names of classes that no mask of the data set ever holds.
        selected: a list has selected these images. That some lack a class says nothing then of what
            the values mean.
    """
    if not found.number:
        return
    purpose = "learn" if training else "score"
    some = "its one mask" if found.number == 1 else f"its {found.number:,} masks"
    there = np.flatnonzero(found.values).tolist()
    present = np.flatnonzero(found.images).tolist()
    absent = [i for i in np.flatnonzero(found.images == 0).tolist() if classes[i] not in never]
    if found.whole and not len(present):
        own = listed(list(found.label_values.values()))
        more = f" (values that occur: {listed(there)}; values of classes: {own})" if own else ""
        yield Finding(
            f"{found.title}: all pixels of {some} are void, there is nothing to {purpose}{more}",
            proved=True,
        )
    elif found.whole and len(classes) > 1 and len(present) == 1 and training:
        yield Finding(
            f"{found.title}: {some} hold no class but {classes[present[0]]}, so there is nothing "
            f"to tell apart: {_named(absent, classes)} {'occurs' if len(absent) == 1 else 'occur'} "
            f"in none.{_hints(found, absent, classes)}",
            proved=True,
        )
    elif absent and (found.whole or found.number >= ENOUGH):
        where = f"no mask of {found.title}"
        if not found.whole:
            looked_at = plural(found.number, "mask")
            where = f"none of the {looked_at} looked at of {found.title}'s {found.total:,}"
        which = f"class {_named(absent, classes)}"
        if len(absent) > 1:
            which = f"{len(absent)} of the {len(classes)} classes: {_named(absent, classes)}"
        meant = "" if training else "; such a class is in the mean only where it is predicted"
        hints = "" if selected else _hints(found, absent, classes)
        yield Finding(f"{where} holds {which}{meant}.{hints}", proved=False)


def judge_indices(
    found: Summary, label_values: Mapping[int, int], classes: Classes
) -> Iterator[Finding]:
    """Say that masks are read as class indices, where those are not the values of label files.

    Args:
        found: in the masks.
        label_values: class index → its value in the label files of the data set.
        classes: name → color, C of them.
    """
    names = list(classes)
    moved = [index for index, value in label_values.items() if index != value]
    # `predict` writes its masks with a palette, whose colors are proof enough
    proved = found.colors and all(
        value == VOID or (value < len(names) and color == classes[names[value]])
        for value, color in found.colors
    )
    if moved and not proved:
        yield Finding(
            f"{found.title}: these masks are read as class indices, and not as the values of the "
            f"label files: {names[moved[0]]} is {moved[0]} here and {label_values[moved[0]]} there "
            "(mask_values says which)",
            proved=False,
        )


def judge_names(classes: Sequence[str], remedies: Sequence[str]) -> Iterator[Finding]:
    """Say which classes are called as if they were void, and whether there are classes enough.

    Args:
        classes: their names, C of them.
        remedies: how to make each of them void, C of them.
    """
    if len(classes) == 1:
        yield Finding(
            f"there is but one class, {classes[0]}: a network tells classes apart, so name what is "
            "not of that class too (as background, with a value of its own in the masks)",
            proved=True,
        )
    for name, remedy in zip(classes, remedies, strict=True):
        if means_void(name):
            yield Finding(
                f"{name} is trained and scored as a class like any other; if it is void, {remedy}",
                proved=False,
            )


def judge_palettes(colors: Colors, official: Mapping[int, Color]) -> Iterator[Finding]:
    """Say where the palettes of masks give a value two meanings.

    One color at two values is a proof, for a palette has each color once; two colors of one value
    may be nothing but taste.

    Args:
        colors: of all masks that belong together; of each the values that occur.
        official: of the data set's own masks, value → color; empty where it has none.
    """
    seen = dict.fromkeys(official.items(), "the data set's palette")
    values: dict[Color, dict[int, str]] = defaultdict(dict)
    colors_of: dict[int, dict[Color, str]] = defaultdict(dict)
    for (value, color), where in [*seen.items(), *(c for c in colors.items() if c[0] not in seen)]:
        values[color].setdefault(value, where)
        colors_of[value].setdefault(color, where)
    for color, places in values.items():
        if len(places) > 1:
            (one, here), (other, there) = list(places.items())[:2]
            also = next((c for c in colors_of[one].items() if c[0] != color), None)
            more = f", and value {one} is {also[0]} in {also[1]}" if also else ""
            yield Finding(
                f"one set, two meanings: the color {color} is value {one} in {here}, but value "
                f"{other} in {there}{more}. Convert all masks to one list of classes; where the "
                "values are right and the palettes wrong, save the masks without a palette.",
                proved=True,
            )
            return
    for value, files in colors_of.items():
        if len(files) > 1 and value != VOID:
            (first, here), (second, there) = list(files.items())[:2]
            yield Finding(
                f"value {value} is {first} in {here}, but {second} in {there}: do both mean the "
                "same?",
                proved=False,
            )
            return


def _hints(found: Summary, absent: Sequence[int], classes: Sequence[str]) -> str:
    """Return what the values that occur say about those that do not, as further sentences."""
    hints = ""
    if not found.label_values:  # colors, each of which is one of the classes' or void's
        return hints
    if len(absent) == 1 and found.with_255 and absent[0] in found.label_values:
        name, value = classes[absent[0]], found.label_values[absent[0]]
        hints += f" {_with_255(found)}: if it stands for {name}, write {value} in its place."
    there = [value for value in np.flatnonzero(found.values).tolist() if value != VOID]
    if len(there) <= 8:
        hints += f" Values that occur: {listed(there)}."
        step = gcd(*there)
        if step > 1 and len(there) > 2:
            hints += f" They are multiples of {step}: write their class's number instead."
    return hints


def _with_255(found: Summary) -> str:
    share = found.values[VOID] / max(found.values.sum(), 1)
    of = f"{found.with_255:,} of {plural(found.number, 'mask')}"
    return f"255, which always is void, is in {of} ({share:.2%} of the pixels)"


def _named(indices: Sequence[int], classes: Sequence[str]) -> str:
    more = f" and {len(indices) - NAMED} more" if len(indices) > NAMED else ""
    return ", ".join(classes[i] for i in indices[:NAMED]) + more
