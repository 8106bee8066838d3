"""From splits to batches: views of a split, map-style datasets, and their DataLoader.

Letters: B batch · C classes · H×W image.
"""

import signal
from collections.abc import Iterable
from typing import NotRequired, TypedDict

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.image import DataError
from deeplab_lit.data.split import Arrays, Split
from deeplab_lit.data.transforms import TrainTransform
from deeplab_lit.loading.sampler import EverySampleOnce, PairedStream, TrainStream
from deeplab_lit.text import first_few
from deeplab_lit.types import VOID

AUGMENTATION, UNLABELED_AUGMENTATION = (
    2,
    4,
)  # apart from the random numbers of loading/sampler.py and data/shapes.py
Sample = tuple[np.ndarray, np.ndarray, str]  # image (H,W,3) uint8 RGB, mask (H,W) uint8, id
GRACE = 15  # seconds that a worker outlives SIGTERM


class Batch(TypedDict):
    """A batch, for training and for scoring."""

    image: Tensor  # (B,3,H,W) uint8 RGB
    mask: Tensor  # (B,H,W) uint8 in {0…C−1, 255}
    id: list[str]
    unlabeled: NotRequired["Unlabeled"]  # in training with images without labels


class Unlabeled(TypedDict):
    """The part of a training batch that has no labels."""

    image: Tensor  # (B,3,H,W) uint8 RGB
    id: list[str]


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
            + ". Scores need the same names on both sides, in any order"
        )
    table = np.full(256, VOID, np.uint8)
    table[: len(names)] = [network.index(name) for name in names]
    return table


class SegmentationDataset(Dataset):
    """A split as a map-style dataset.

    Args:
        split: where images come from.
        transform: random augmentation, for training.
        seed: of the augmentation.
        augmentation: another number gives other random numbers for the same seed.
    """

    def __init__(
        self,
        split: Split,
        transform: TrainTransform | None = None,
        seed: int = 0,
        augmentation: int = AUGMENTATION,
    ) -> None:
        self.augmentation = augmentation
        self.split = split
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split.ids)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Read an image (H,W,3) and its mask (H,W), uint8, with the id.

        Args:
            key: an index; or (position, index), where the position in the training stream makes
                the augmentation: the same position always draws the same crop.
        """
        position, index = key if isinstance(key, tuple) else (key, key)
        image, mask = self.split.read(index)
        if self.transform is not None:
            rng = np.random.default_rng((self.seed, position, self.augmentation))
            image, mask = self.transform(image, mask, rng)
        return image, mask, self.split.ids[index]


class PairedDataset(Dataset):
    """Labeled and unlabeled samples, in pairs.

    Args:
        labeled: the dataset of the first.
        unlabeled: the dataset of the second.
    """

    def __init__(self, labeled: SegmentationDataset, unlabeled: SegmentationDataset) -> None:
        self.labeled, self.unlabeled = labeled, unlabeled

    def __len__(self) -> int:
        return len(self.labeled)

    def __getitem__(self, keys: tuple[tuple[int, int], tuple[int, int]]) -> tuple[Sample, Sample]:
        """Read a labeled and an unlabeled sample, by (position, index) of each."""
        return self.labeled[keys[0]], self.unlabeled[keys[1]]


def collate_pairs(pairs: list[tuple[Sample, Sample]]) -> Batch:
    """Make a batch of the labeled samples, and a part of it of the unlabeled ones."""
    batch = collate([labeled for labeled, _ in pairs])
    others = collate([unlabeled for _, unlabeled in pairs])
    batch["unlabeled"] = {"image": others["image"], "id": others["id"]}
    return batch


def collate(samples: list[Sample]) -> Batch:
    """Make a batch of samples of one size; images stay in H,W,3 order in memory (channels last).

    Raises:
        DataError: images of different sizes.
    """
    images, masks, ids = zip(*samples, strict=True)
    if len({image.shape for image in images}) > 1:
        sizes = ", ".join(
            f"{id} {image.shape[1]}×{image.shape[0]}" for id, image in zip(ids, images, strict=True)
        )
        raise DataError(
            f"images of different sizes cannot share a batch ({sizes}): "
            "set --loader.eval_batch_size 1"
        )
    return {
        "image": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        "mask": torch.from_numpy(np.stack(masks)),
        "id": list(ids),
    }


def build_loader(
    dataset: SegmentationDataset | PairedDataset,
    sampler: TrainStream | PairedStream | EverySampleOnce,
    batch_size: int,
    num_workers: int,
    *,
    keep_workers: bool = False,
) -> DataLoader:
    """Build the DataLoader of a dataset, for this process.

    Args:
        dataset: reads the samples.
        sampler: says which of them, and in which order.
        batch_size: samples a batch.
        num_workers: processes that read; 0: this one.
        keep_workers: they live on from one epoch to the next.
    """
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate_pairs if isinstance(dataset, PairedDataset) else collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=keep_workers and num_workers > 0,
        worker_init_fn=_prepare_worker,
    )


def _prepare_worker(worker: int) -> None:
    """Use one thread, and leave the main process time to save when a signal ends the job.

    SIGTERM cannot be ignored: a main process that fails ends its workers with it, and waits.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
