"""From splits to batches: map-style datasets, and their DataLoader.

Letters: B batch · C classes · H×W image.
"""

import signal
from functools import partial
from typing import NotRequired, TypedDict

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deeplab_lit.data.image import DataError
from deeplab_lit.data.split import Split
from deeplab_lit.data.transforms import TrainTransform
from deeplab_lit.loading.sampler import EverySampleOnce, PairedStream, TrainStream

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
    """The part of a training batch that has no labels, or pseudo-labels."""

    image: Tensor  # (B,3,H,W) uint8 RGB
    id: list[str]
    mask: NotRequired[Tensor]  # (B,H,W) uint8 in {0…C−1, 255}, where there is a mask_dir


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
        pseudo_labeled: the masks of the second are worth something.
    """

    def __init__(
        self,
        labeled: SegmentationDataset,
        unlabeled: SegmentationDataset,
        *,
        pseudo_labeled: bool = False,
    ) -> None:
        self.labeled, self.unlabeled = labeled, unlabeled
        self.pseudo_labeled = pseudo_labeled

    def __len__(self) -> int:
        return len(self.labeled)

    def __getitem__(self, keys: tuple[tuple[int, int], tuple[int, int]]) -> tuple[Sample, Sample]:
        """Read a labeled and an unlabeled sample, by (position, index) of each."""
        return self.labeled[keys[0]], self.unlabeled[keys[1]]


def collate_pairs(pairs: list[tuple[Sample, Sample]], *, pseudo_labeled: bool = False) -> Batch:
    """Make a batch of the labeled samples, and a part of it of the unlabeled ones.

    Args:
        pairs: a labeled and an unlabeled sample each.
        pseudo_labeled: the part has the masks of the unlabeled samples too.
    """
    batch = collate([labeled for labeled, _ in pairs])
    others = collate([unlabeled for _, unlabeled in pairs])
    batch["unlabeled"] = {"image": others["image"], "id": others["id"]}
    if pseudo_labeled:
        batch["unlabeled"]["mask"] = others["mask"]
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
            "set --loader.eval_batch_size 1; in training --loader.batch_size 1, or bring them to "
            "one size with --loader.resize"
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
        collate_fn=partial(collate_pairs, pseudo_labeled=dataset.pseudo_labeled)
        if isinstance(dataset, PairedDataset)
        else collate,
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
