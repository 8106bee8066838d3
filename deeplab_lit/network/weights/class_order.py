"""Do two lists name the same classes in the same order? A network knows its classes by index only.

Spelling does not count: capitals, and spaces, dashes or underscores between words.
"""

import re
from collections.abc import Sequence
from itertools import zip_longest

SHOWN = 5  # differences in a sentence
GENERIC = re.compile(r"class_\d+")  # what a network is given that does not know its classes


def moved(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Return whether a class stands in both lists, at different indices."""
    places = [{name: i for i, name in enumerate(names)} for names in _comparable(theirs, ours)]
    return any(places[1].get(name, i) != i for name, i in places[0].items())


def is_reordered(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Return whether both lists have the same classes, in another order."""
    theirs, ours = _comparable(theirs, ours)
    return theirs != ours and sorted(theirs) == sorted(ours)


def differing(theirs: Sequence[str], ours: Sequence[str]) -> list[int]:
    """Return the indices at which two lists differ; the longer one's last ones among them."""
    pairs = enumerate(zip_longest(*_comparable(theirs, ours)))
    return [i for i, (one, other) in pairs if one != other]


def differences(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Say where two lists differ: "3: cat → dog, 4: cow → (none)", the first five."""
    found = differing(theirs, ours)
    names = [(i, [x[i] if i < len(x) else "(none)" for x in (theirs, ours)]) for i in found[:SHOWN]]
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(f"{i}: {one} → {other}" for i, (one, other) in names) + more


def are_generic(names: Sequence[str]) -> bool:
    """Return whether these names only number the classes, as class_0 does."""
    return all(map(GENERIC.fullmatch, names))


def _comparable(theirs: Sequence[str], ours: Sequence[str]) -> tuple[list[str], list[str]]:
    """Without spelling, unless a list would then name a class twice."""
    plain = [[re.sub(r"[\s_-]+", " ", name).casefold() for name in x] for x in (theirs, ours)]
    if any(len(set(names)) < len(names) for names in plain):
        return list(theirs), list(ours)
    return plain[0], plain[1]
