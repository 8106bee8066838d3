"""Which images of a validation split a network has been trained on."""

from collections.abc import Sequence

from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.image import DataError


def seen_splits(data: SegmentationData, trained_on: Sequence[str]) -> list[str]:
    """Those of the splits trained on that share images with the validation split.

    Two splits share images if the data set says so of their names, or if their lists do: either
    may be wrong alone, a list where only a part of the data is there.

    Args:
        data: with the split to validate on.
        trained_on: entries like "VOC:train_aug", as `SegmentationData.label` writes them, in
            capitals or not; those of other data sets are passed over.
    """
    own, _, val_split = data.label(data.val_split).lower().rpartition(":")
    seen = []
    for entry in trained_on:
        name, _, split = entry.rpartition(":")
        if name.lower() != own:
            continue
        parts = [data.parts.get(s, {s}) for s in (val_split, split.lower())]
        if parts[0] & parts[1] or _share_ids(data, split):
            seen.append(entry)
    return seen


def _share_ids(data: SegmentationData, split: str) -> bool:
    if not data.ids_are_global:
        return False
    try:
        return bool(set(data.split(split).ids) & set(data.split(data.val_split).ids))
    except DataError:  # not all of its files are here
        return False
