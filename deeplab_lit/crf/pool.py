"""Refine many images at once: one thread an image, since the CRF releases Python's lock (GIL)."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deeplab_lit.crf.dense_crf import Refiner

BYTES = 45  # for each class of each pixel of an image in work: measured 36 to 42 on photographs


class Refined(NamedTuple):
    """A refined image.

    Attributes:
        note: what was submitted with it.
        labels: class indices (H,W) after the CRF, or what else the pool reads.
        seconds: that the CRF took.
    """

    note: Any
    labels: Any
    seconds: float


class RefiningPool:
    """Refine images side by side; whichever is done comes out first, so a slow one delays no other.

    The number of images in the pool is bounded by two for each worker, and by half of the
    machine's memory.

    Args:
        crf: called in the workers, in each of which torch has one thread.
        workers: how many images at a time.
    """

    def __init__(self, crf: Refiner, workers: int) -> None:
        self.crf = crf
        self.workers = workers
        self.pool = ThreadPoolExecutor(workers, "crf", torch.set_num_threads, (1,))
        self.waiting: dict[Future[tuple[Any, float]], Any] = {}

    def submit(
        self,
        note: Any,
        image: np.ndarray,
        probabilities: np.ndarray,
        read: Callable[[Tensor], Any] | None = None,
    ) -> list[Refined]:
        """Submit an image; return those that are done.

        Args:
            note: comes out with it.
            image: (H,W,3) uint8.
            probabilities: (C,H,W) float32.
            read: what is made of the refined probabilities (C,H,W), in the workers too. None: the
                class indices (H,W).
        """
        done = []
        most = int(memory() / 2 / (BYTES * probabilities.size))
        while len(self.waiting) >= max(min(2 * self.workers, most), 1):
            done.append(self._take_one())
        self.waiting[self.pool.submit(self._refine, image, probabilities, read)] = note
        return done

    def rest(self) -> Iterator[Refined]:
        """Wait for the remaining images, one after the other."""
        while self.waiting:
            yield self._take_one()
        self.pool.shutdown()

    def stop(self) -> None:
        """Cancel the images that nobody waits for."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _refine(
        self,
        image: np.ndarray,
        probabilities: np.ndarray,
        read: Callable[[Tensor], Any] | None,
    ) -> tuple[Any, float]:
        start = perf_counter()
        refined = self.crf(image, probabilities)
        if read is None:
            labels = torch.as_tensor(refined.argmax(0))
        else:
            labels = read(torch.as_tensor(refined))
        return labels, perf_counter() - start

    def _take_one(self) -> Refined:
        finished = wait(self.waiting, return_when=FIRST_COMPLETED).done.pop()
        return Refined(self.waiting.pop(finished), *finished.result())


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Return the bytes of memory that the machine has; 8 GB where it does not tell."""
    if not hasattr(os, "sysconf"):
        return 8 << 30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
