"""Time the CRF's backends against each other over whole sets of images.

Our backends run in a pool of threads, pydensecrf in a pool of processes: it holds Python's lock
(GIL), so it needs processes to use more than one core. Each of them gets all images once, before
the clock starts; both return label maps.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from deeplab_lit.benchmark.crf_backends import Options, available
from deeplab_lit.crf.dense_crf import DenseCRF

Samples = Sequence[tuple[np.ndarray, np.ndarray]]  # image (H,W,3) uint8, probabilities (C,H,W)
_samples: Samples = ()  # of a process of the pool


class Throughput(NamedTuple):
    """Results of one backend over the whole set.

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
        """Return how many times the reference's throughput it has: median over rounds."""
        return median(self.ratios)


def compare_pools(
    samples: Samples,
    options: Options,
    workers: int,
    rounds: int = 3,
) -> list[Throughput]:
    """Refine the set with each backend in turn, `workers` images at a time.

    Args:
        samples: the set.
        options: arguments of `DenseCRF`.
        workers: threads of our backends, processes of pydensecrf.
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
                for row, duration in zip(rows, seconds, strict=True):
                    if i:  # the first warms up
                        row.seconds.append(duration)
                        row.ratios.append(seconds[0] / duration)
    finally:
        torch.set_num_threads(before)
    return rows


def _time(crf: DenseCRF, pool: Executor, samples: Samples) -> float:
    in_process = isinstance(pool, ProcessPoolExecutor)
    labels = partial(_labels_in_process if in_process else partial(_labels, samples), crf)
    start = perf_counter()
    list(pool.map(labels, range(len(samples))))
    return perf_counter() - start


def _labels(samples: Samples, crf: DenseCRF, index: int) -> np.ndarray:
    image, probabilities = samples[index]
    return crf(image, probabilities).argmax(0).astype(np.uint8)


def _labels_in_process(crf: DenseCRF, index: int) -> np.ndarray:
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
