"""The DataLoader of training and evaluation, and how its workers behave."""

import signal

import cv2
import torch
from torch.utils.data import DataLoader

from deeplab_lit.data.dataset import SegmentationDataset, collate
from deeplab_lit.data.sampler import EverySampleOnce, TrainStream

GRACE = 15  # seconds that a worker outlives SIGTERM


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
