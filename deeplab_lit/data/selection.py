"""Select images of a training split by a list: those that it names, or all others."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from deeplab_lit.data.id_lists import IdList, indices_of, read_ids
from deeplab_lit.data.image import DataError
from deeplab_lit.data.split import PartOfSplit, Split
from deeplab_lit.text import first_few, plural

# what `Selection.in_label` appends to the name of a split
IN_LABEL = re.compile(r" \[(ids|all_but) .*, SHA-256 [0-9a-f]{64}\]$")


class Selection:
    """The images that a list names, or all others. The list is read when it is first needed.

    Args:
        ids: file that names the images. None: see the other.
        all_but: file that names the images to leave out. None: see the other.

    Raises:
        DataError: both are given, or none is.
    """

    def __init__(self, ids: str | None, all_but: str | None) -> None:
        if (ids is None) == (all_but is None):
            raise DataError(
                f"ids ({ids}) and all_but ({all_but}) both select images of the training split: "
                "give one of them"
            )
        self.option = "all_but" if ids is None else "ids"
        self.path = Path(ids or all_but or "").expanduser()

    @cached_property
    def listed(self) -> IdList:
        """The content of the list.

        Raises:
            DataError: as `read_ids`.
        """
        return read_ids(self.path)

    def in_words(self) -> str:
        """Return the option with the list, as "ids 92/labeled.txt"."""
        return f"{self.option} {self.listed.title}"

    def in_label(self) -> str:
        """Return what follows the name of a split in the provenance of weights."""
        return f" [{self.in_words()}, SHA-256 {self.listed.sha256}]"

    def of(self, split: Split, name: str, others: Mapping[str, Callable[[], Split]]) -> PartOfSplit:
        """Return the selected images of a split, in its order.

        Args:
            split: the split.
            name: of the data set and the split, for messages.
            others: name of each other split of the data set → what finds its images.

        Raises:
            DataError: the list names images that the split does not have, or nothing is left.
        """
        found, missing = indices_of(self.listed, split.ids, split.image_files())
        if missing:
            raise DataError(
                f"{self.option} {self.path}: {len(missing):,} of the "
                f"{plural(len(self.listed.names), 'image')} named there "
                f"{'is' if len(missing) == 1 else 'are'} not in {name} ({first_few(missing)})"
                + _where(self.listed, missing, others)
            )
        named = set(found)
        chosen = [i for i in range(len(split.ids)) if (i in named) == (self.option == "ids")]
        if not chosen:
            raise DataError(
                f"all_but {self.path}: all {plural(len(split.ids), 'image')} of {name} are named "
                "there, so none is left"
            )
        return PartOfSplit(split, chosen)


def same_list_changed(label: str, other: str) -> bool:
    """Return whether two labels name one list of one split, whose content is another."""
    names = [each.rpartition(", SHA-256 ")[0] for each in (label, other) if IN_LABEL.search(each)]
    return label != other and len(names) == 2 and names[0] == names[1]


def without_list(label: str) -> str:
    """Return a split's label in a provenance without the list that selected from it."""
    return IN_LABEL.sub("", label)


def _where(
    listed: IdList, missing: Sequence[str], others: Mapping[str, Callable[[], Split]]
) -> str:
    """Say which other splits have the images that one lacks, as the end of a message."""
    wanted = listed._replace(names=list(missing))
    there: dict[str, int] = {}
    not_looked_at = []
    for name, find in others.items():
        try:
            split = find()
            there[name] = len(indices_of(wanted, split.ids, split.image_files())[0])
        except DataError:  # not all of its files are here
            not_looked_at.append(name)
    best = max(there, key=lambda name: there[name], default="")
    if best and there[best]:
        are = "is" if there[best] == 1 else "are"
        return (
            f"; {there[best]:,} of them {are} in {best}: if the list was made for that split, give "
            f"--data.train_split {best}"
        )
    unknown = f" ({first_few(not_looked_at)} cannot be read here)" if not_looked_at else ""
    return f". Give a list of this data set, or the split that the list was made for{unknown}"
