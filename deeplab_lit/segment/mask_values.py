"""Which values masks hold: class indices, or those of the label files that a network has seen."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deeplab_lit.data.image import DataError
from deeplab_lit.types import VOID

if TYPE_CHECKING:  # torchvision, which it loads, takes a second, and `predict --help` needs none
    from deeplab_lit.network.deeplab import DeepLabV2


def label_values(net: "DeepLabV2", path: str, *, with_void: bool = False) -> list[int]:
    """Return the value that each class index of a network has in the label files trained on.

    Args:
        net: as it was loaded.
        path: of its file.
        with_void: masks will hold void too, which is 255 in the labels of every data set.

    Raises:
        DataError: the file does not say it; or 255 is the value of a class.
    """
    values = net.label_values or {}
    unknown = [name for name in net.classes if name not in values]
    if unknown:
        raise DataError(
            f"--mask_values labels: {path} does not say which value {unknown[0]} has in labels "
            "(fit writes that into checkpoints; older ones are without it): leave out --mask_values"
        )
    if with_void and (at_void := [name for name in net.classes if values[name] == VOID]):
        raise DataError(
            f"--mask_values labels: {at_void[0]} has the value {VOID} in labels, which is void in "
            "pseudo-labels: leave out --mask_values"
        )
    return [values[name] for name in net.classes]


def about_values(net: "DeepLabV2", values: Sequence[int] | None) -> Iterator[str]:
    """Yield what to know of masks whose values may not be those of the label files trained on.

    Args:
        net: that has made the masks.
        values: that they hold for each class index; None: the indices.
    """
    if net.label_values is None:
        yield (
            "Masks hold class indices (0 is the first class); which values the label files "
            "had that it was trained on is not in the network's file"
        )
    labels = net.label_values or {}
    moved = [(name, i, labels.get(name, i)) for i, name in enumerate(net.classes)]
    moved = [(name, index, value) for name, index, value in moved if index != value]
    if moved and values is None:
        name, index, value = moved[0]
        yield (
            "Masks hold class indices, which are not the values of the label files trained on: "
            f"{name} is {index} here and {value} there. --mask_values labels writes theirs."
        )
