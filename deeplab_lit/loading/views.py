"""Views of a split: in a network's order of classes, or without its labels.

Letters: C classes · H×W image.
"""

from collections.abc import Iterable

import numpy as np

from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.image import DataError
from deeplab_lit.data.split import Arrays, Split
from deeplab_lit.text import first_few
from deeplab_lit.types import VOID


class ReorderedSplit(Split):
    """A split whose class indices are mapped to those of the same classes in another order.

    Args:
        split: the split.
        table: (256,) uint8, from its class indices to the others.
    """

    def __init__(self, split: Split, table: np.ndarray) -> None:
        self.ids, self.split, self.table = split.ids, split, table

    def read(self, index: int) -> Arrays:
        """Read an image and its mask, mapped."""
        image, mask = self.split.read(index)
        return image, self.table[mask]

    def label_values(self, num_classes: int) -> dict[int, int]:
        """Return class index → its lowest value in the label files."""
        values = self.split.label_values(num_classes)
        return {int(self.table[index]): value for index, value in values.items()}


class WithoutLabels(Split):
    """The images of a split, with masks of nothing but void; its own masks are not read.

    Args:
        split: the split.
    """

    def __init__(self, split: Split) -> None:
        self.ids, self.split = split.ids, split

    def read(self, index: int) -> Arrays:
        """Read an image, and make a mask of void."""
        image = self.split.image(index)
        return image, np.full(image.shape[:2], VOID, np.uint8)


def class_table(data: SegmentationData, classes: Iterable[str]) -> np.ndarray | None:
    """Return the table (256,) uint8 that maps a data set's class indices to a network's.

    Args:
        data: the data set.
        classes: names in the order of the network's class indices.

    Returns:
        None where the order is the same. Void stays void.

    Raises:
        DataError: the two have other classes.
    """
    names, network = list(data.classes), list(classes)
    if names == network:
        return None
    if set(names) != set(network):
        only_here = [name for name in names if name not in network]
        only_there = [name for name in network if name not in names]
        raise DataError(
            f"{type(data).__name__} has other classes than are trained: "
            + "; ".join(
                f"{first_few(those)} {'is' if len(those) == 1 else 'are'} only {where}"
                for those, where in ((only_here, "there"), (only_there, "trained"))
                if those
            )
            + ". Both need classes of the same names, in any order"
        )
    table = np.full(256, VOID, np.uint8)
    table[: len(names)] = [network.index(name) for name in names]
    return table


def refuse_other_indices(unlabeled: SegmentationData, classes: Iterable[str]) -> None:
    """Refuse the `mask_dir` of unlabeled images whose class indices are not those of the network.

    Args:
        unlabeled: the data set.
        classes: names in the order of the network's class indices.

    Raises:
        DataError: the data set has other classes; or the same in another order, and its masks may
            be meant in either.
    """
    network = list(classes)
    try:
        table = class_table(unlabeled, network)
    except DataError as error:
        raise DataError(f"--unlabeled_data.mask_dir {unlabeled.mask_dir}: {error}") from error
    if table is None:
        return
    pairs = enumerate(zip(unlabeled.classes, network, strict=True))
    index, (here, there) = next((i, names) for i, names in pairs if names[0] != names[1])
    raise DataError(
        f"--unlabeled_data.mask_dir {unlabeled.mask_dir}: masks hold class indices, and index "
        f"{index} is {here} in {type(unlabeled).__name__}, but {there} in what is trained. Give "
        "these images as a data set that counts its classes in the order of the training's"
    )
