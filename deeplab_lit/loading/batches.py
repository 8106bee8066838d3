"""From a split to batches: a map-style dataset, its DataLoader, and how its workers behave.

Letters: B batch · H×W image.
"""

import signal
from typing import TypedDict

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deeplab_lit.data.image import DataError
from deeplab_lit.data.split import Split
from deeplab_lit.data.transforms import TrainTransform
from deeplab_lit.loading.sampler import EverySampleOnce, TrainStream

AUGMENTATION = 2  # apart from the random numbers of loading/sampler.py and data/shapes.py
GRACE = 15  # seconds that a worker outlives SIGTERM


class Batch(TypedDict):
    """What the network is trained and scored on."""

    image: Tensor  # (B,3,H,W) uint8 RGB
    mask: Tensor  # (B,H,W) uint8 in {0…C−1, 255}
    id: list[str]


class SegmentationDataset(Dataset):
    """A split as a map-style dataset.

    Args:
        split: where images come from.
        transform: random augmentation, for training.
        seed: of the augmentation.
    """

    def __init__(
        self, split: Split, transform: TrainTransform | None = None, seed: int = 0
    ) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split.ids)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[np.ndarray, np.ndarray, str]:
        """Image (H,W,3), mask (H,W), id.

        Args:
            key: an index; or (position, index), where the position in the training stream makes
                the augmentation: the same position always draws the same crop.
        """
        position, index = key if isinstance(key, tuple) else (key, key)
        image, mask = self.split.read(index)
        if self.transform is not None:
            rng = np.random.default_rng((self.seed, position, AUGMENTATION))
            image, mask = self.transform(image, mask, rng)
        return image, mask, self.split.ids[index]


def collate(samples: list[tuple[np.ndarray, np.ndarray, str]]) -> Batch:
    """Samples of one size to a batch; the image's memory stays in H,W,3 order (channels last).

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
            "set --data.eval_batch_size 1"
        )
    return {
        "image": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        "mask": torch.from_numpy(np.stack(masks)),
        "id": list(ids),
    }


def build_loader(
    dataset: SegmentationDataset,
    sampler: TrainStream | EverySampleOnce,
    batch_size: int,
    num_workers: int,
    *,
    keep_workers: bool = False,
) -> DataLoader:
    """Batches of a data set, on this process.

    Args:
        dataset: of the samples.
        sampler: which of them, and in which order.
        batch_size: samples a batch.
        num_workers: processes that read; 0: this one.
        keep_workers: they live on from one epoch to the next.
    """
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=keep_workers and num_workers > 0,
        worker_init_fn=_prepare_worker,
    )


def _prepare_worker(worker: int) -> None:
    """One thread; and a signal to the whole job leaves the main process time to save.

    SIGTERM cannot be ignored: a main process that fails ends its workers with it, and waits.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
