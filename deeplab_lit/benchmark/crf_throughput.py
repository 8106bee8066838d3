"""Timing whole sets of images: our CRF in a pool of threads, pydensecrf in a pool of processes.

pydensecrf holds Python's lock, so processes are what it needs to use more than one core. The pools
take turns over the same images. Each process of pydensecrf gets all images once, before the clock
starts; both give back label maps.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from deeplab_lit.benchmark.crf import available
from deeplab_lit.crf.dense_crf import DenseCRF

Samples = Sequence[tuple[np.ndarray, np.ndarray]]  # image (H,W,3) uint8, probabilities (C,H,W)
_samples: Samples = ()  # of a process of the pool


class Throughput(NamedTuple):
    """One backend over the whole set.

    Attributes:
        backend: its name.
        seconds: of the whole set, each round.
        ratios: the reference's time over this one's, each round.
    """

    backend: str
    seconds: list[float]
    ratios: list[float]

    @property
    def ratio(self) -> float:
        """How many times the reference's throughput: median over rounds."""
        return median(self.ratios)


def compare_pools(
    samples: Samples,
    options: Mapping[str, float | str],
    workers: int,
    rounds: int = 3,
) -> list[Throughput]:
    """Refine the set with each backend in turn, `workers` images at a time.

    Args:
        samples: the set.
        options: arguments of `DenseCRF`.
        workers: threads of ours, processes of pydensecrf.
        rounds: how often, after a round that is not measured.

    Returns:
        A row for each backend that works here; the first is the reference.
    """
    crfs = available(*samples[0], {**options, "threads": 1})
    rows = [Throughput(backend, [], []) for backend in crfs]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _processes(samples, workers) as processes, ThreadPoolExecutor(workers) as threads:
            for i in range(rounds + 1):
                seconds = []
                for crf in crfs.values():
                    pool = processes if crf.backend == "pydensecrf" else threads
                    seconds.append(_time(crf, pool, samples))
                for row, own in zip(rows, seconds, strict=True):
                    if i:  # the first warms up
                        row.seconds.append(own)
                        row.ratios.append(seconds[0] / own)
    finally:
        torch.set_num_threads(before)
    return rows


def _time(crf: DenseCRF, pool: Executor, samples: Samples) -> float:
    one = _labels_there if isinstance(pool, ProcessPoolExecutor) else partial(_labels, samples)
    start = perf_counter()
    list(pool.map(partial(one, crf), range(len(samples))))
    return perf_counter() - start


def _labels(samples: Samples, crf: DenseCRF, index: int) -> np.ndarray:
    image, probabilities = samples[index]
    return crf(image, probabilities).argmax(0).astype(np.uint8)


def _labels_there(crf: DenseCRF, index: int) -> np.ndarray:
    return _labels(_samples, crf, index)


@contextmanager
def _processes(samples: Samples, workers: int) -> Iterator[ProcessPoolExecutor]:
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (samples,)) as pool:
        yield pool


def _begin(samples: Samples) -> None:
    global _samples
    _samples = samples
    torch.set_num_threads(1)
