"""Subsets of a data set's classes, scored beside all of them: val/miou16 and val/miou13.

SYNTHIA has 16 of Cityscapes' 19 classes, so a network that was trained on it is scored on these, or
on the 13 of them that are no thin or rare structures. Two rules are in use, which give different
numbers for the same predictions; `--eval.subsets` names the one:

- "rows" (BDL, DACS, DAFormer): the mean over the subset's rows of the whole confusion matrix. A
  pixel of terrain that is taken for vegetation is a mistake, and lowers the IoU of vegetation.
- "pixels" (ADVENT, DADA, CRST, ProDA): pixels whose true class is in no subset (terrain, truck,
  train) are left out first, as if they were void. Never lower than the other. These networks have
  16 outputs; one with 19 may still predict a class that is left out, which is a mistake.

By either rule mIoU13 is the mean of 13 rows of the matrix whose 16 are mIoU16's: pixels of wall,
fence and pole count in both. A class that is neither true nor predicted has no IoU, and stays out
of the mean of a subset as of all classes.

Letters: C classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

import deeplab_lit.data as data_sets
from deeplab_lit.data import DataError, SegmentationData
from deeplab_lit.data.selection import without_list
from deeplab_lit.types import VOID

Rule = Literal["rows", "pixels"]


@dataclass(frozen=True)
class Subsets:
    """Subsets of a network's classes, and the rule by which they are scored.

    Attributes:
        rule: which pixels count.
        members: name of each subset, as "16" → indices of its classes; empty: none is scored.
    """

    rule: Rule = "rows"
    members: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def counted(self, confusion: Tensor) -> Tensor:
        """Return the confusion matrix of the pixels that count: itself, or with rows set to 0.

        Args:
            confusion: (C,C) or (C,C+1) pixels by true class (row) and predicted class (column).
        """
        if self.rule == "rows":
            return confusion
        within = torch.zeros(len(confusion), dtype=torch.bool)
        for members in self.members.values():
            within[list(members)] = True
        return confusion.where(within[:, None], 0)

    def masked(self, mask: Tensor) -> Tensor | None:
        """Return a mask (H,W) with void where pixels do not count; None: all of them count."""
        if self.rule == "rows" or not self.members:
            return None
        within = {index for members in self.members.values() for index in members}
        return mask.where(torch.isin(mask, mask.new_tensor(sorted(within))), VOID)


NO_SUBSETS = Subsets()


def choose_subsets(
    data: SegmentationData, classes: Iterable[str], rule: Rule | None, lacked: Iterable[str] = ()
) -> Subsets:
    """Return the subsets to score on a data set.

    Args:
        data: to be scored on.
        classes: the data set's, in the order of the network's class indices.
        rule: of `--eval.subsets`; None: "rows" where the training data lack classes, else nothing.
        lacked: names of the classes that the training data lack.

    Raises:
        DataError: a rule is given, and the data set has no subsets; or one has an unknown class.
    """
    owner, names = type(data).__name__, list(classes)
    if rule is not None and not data.subsets:
        raise DataError(
            f"--eval.subsets {rule}: {owner} has no subsets of its classes to score, as Cityscapes "
            "has one of 16 and one of 13. Leave the option out, or set it to null where a "
            "configuration has it; a data set class of yours may have `subsets`"
        )
    if rule is None and not set(lacked) & set(names):
        return NO_SUBSETS
    for subset, members in data.subsets.items():
        if unknown := [member for member in members if member not in names]:
            raise DataError(
                f"{owner}.subsets: {subset!r} has {unknown[0]!r}, which is none of the classes "
                f"({', '.join(names)})"
            )
    indices = {
        subset: tuple(names.index(member) for member in members)
        for subset, members in data.subsets.items()
    }
    return Subsets(rule or "rows", indices)


def lacked_by(trained_on: Sequence[str]) -> frozenset[str]:
    """Return the classes that the data trained on last never hold.

    Args:
        trained_on: splits like "Synthia:all", as a provenance has them, oldest first; of a data set
            that is not of this package nothing is known.
    """
    name = without_list(trained_on[-1]).rpartition(":")[0].lower() if trained_on else ""
    sets = {each.lower(): getattr(data_sets, each) for each in data_sets.__all__}
    return frozenset(getattr(sets.get(name), "never", ()))
