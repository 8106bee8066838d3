"""Do two lists name the same classes in the same order? A network knows its classes by index only.

Spelling does not count: capitals, and spaces, dashes or underscores between words.
"""

import re
from collections.abc import Sequence
from itertools import zip_longest

from deeplab_lit.network.weights.read import WeightsError

MOST = 5  # differences in a sentence
GENERIC = re.compile(r"class_\d+")  # what a network is given that does not know its classes


def moved(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether a class stands in both lists, at different indices."""
    places = [{name: i for i, name in enumerate(names)} for names in _comparable(first, second)]
    return any(places[1].get(name, i) != i for name, i in places[0].items())


def is_reordered(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether both lists have the same classes, in another order."""
    first, second = _comparable(first, second)
    return first != second and sorted(first) == sorted(second)


def differing(first: Sequence[str], second: Sequence[str]) -> list[int]:
    """Return the indices at which two lists differ; the longer one's last ones among them."""
    pairs = enumerate(zip_longest(*_comparable(first, second)))
    return [i for i, (one, other) in pairs if one != other]


def differences(first: Sequence[str], second: Sequence[str]) -> str:
    """Say where two lists differ: "3: cat → dog, 4: cow → (none)", the first five."""
    indices = differing(first, second)
    pairs = [[x[i] if i < len(x) else "(none)" for x in (first, second)] for i in indices[:MOST]]
    more = f", and {len(indices) - MOST} more" if len(indices) > MOST else ""
    texts = [f"{i}: {one} → {other}" for i, (one, other) in zip(indices, pairs, strict=False)]
    return ", ".join(texts) + more


def are_generic(names: Sequence[str]) -> bool:
    """Return whether these names only number the classes, as class_0 does."""
    return all(map(GENERIC.fullmatch, names))


def check_order(in_file: Sequence[str], names: Sequence[str], path: str, owner: str) -> None:
    """Refuse names under which a network's scores or masks would be other classes'.

    Args:
        in_file: names of the network's classes, by index.
        names: that they are about to be given, by index.
        path: of the network's file.
        owner: of the latter, like "Folder's".

    Raises:
        WeightsError: a class stands at another index.
    """
    if moved(in_file, names):
        raise WeightsError(
            f"{path} has its classes in another order than {owner} (index: checkpoint → data; "
            f"{differences(in_file, names)}), so they would be taken for each other. Use the data "
            "that it was trained on; or bring the names, and the values in the masks, into the "
            "checkpoint's order"
        )


def _comparable(first: Sequence[str], second: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return both lists without spelling, unless one would then name a class twice."""
    plain = [[re.sub(r"[\s_-]+", " ", name).casefold() for name in x] for x in (first, second)]
    if any(len(set(names)) < len(names) for names in plain):
        return list(first), list(second)
    return plain[0], plain[1]
