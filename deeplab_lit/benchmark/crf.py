"""Time the CRF's backends against each other: image by image, and over whole sets.

They take turns on the same images. Absolute times drift where a machine is shared; the median ratio
of neighboring runs does not.

Over a whole set our backends run in a pool of threads, pydensecrf in a pool of processes: it holds
Python's lock (GIL), so it needs processes to use more than one core. Each of them gets all images
once, before the clock starts; both return label maps.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deeplab_lit.crf.dense_crf import DenseCRF
from deeplab_lit.crf.mean_field import bilateral_lattice
from deeplab_lit.crf.parameters import CRFError, Parameters

Options = Mapping[str, Any]  # arguments of `DenseCRF`
Samples = Sequence[tuple[np.ndarray, np.ndarray]]  # image (H,W,3) uint8, probabilities (C,H,W)
_samples: Samples = ()  # of a process of the pool
SETTINGS: dict[str, Options] = {  # "σγ,w2 | σα,σβ,w1"
    "3,3 | 121,5,4": {"pos_w": 3, "pos_xy_std": 3, "bi_xy_std": 121, "bi_rgb_std": 5, "bi_w": 4},
    "3,3 | 50,5,5": {"pos_w": 3, "pos_xy_std": 3, "bi_xy_std": 50, "bi_rgb_std": 5, "bi_w": 5},
    "1,3 | 67,3,4": {"pos_w": 3, "pos_xy_std": 1, "bi_xy_std": 67, "bi_rgb_std": 3, "bi_w": 4},
}


@dataclass
class Row:
    """Results of one backend at one setting, over all images and rounds."""

    setting: str
    backend: str
    threads: int
    vertices_per_pixel: float  # median over images of the bilateral lattice's M/N
    max_difference: float = 0.0  # of a probability from the reference's, over all images
    label_agreement: float = 1.0  # the least of an image
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)  # the reference's time over this one's

    @property
    def milliseconds(self) -> float:
        """Return the median time of an image."""
        return 1000 * median(self.seconds)

    @property
    def ratio(self) -> float:
        """Return how many times faster than the reference it is: median over images and rounds."""
        return median(self.ratios)


def even_size(image: np.ndarray) -> np.ndarray:
    """Crop (H,W,3) to even sides: pydensecrf adds pixels where H·W is not a multiple of 4."""
    return np.ascontiguousarray(image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2])


@torch.inference_mode()
def probabilities(
    image: np.ndarray, net: Callable[[Tensor], Tensor] | None, num_classes: int = 21
) -> np.ndarray:
    """Return (C,H,W) for an image (H,W,3): the network's, or smooth noise over so many classes."""
    if net is not None:
        return net(torch.from_numpy(image).permute(2, 0, 1)[None])[0].softmax(0).numpy()
    size = image.shape[:2]
    random = torch.Generator().manual_seed(image.size)
    noise = torch.randn(1, num_classes, size[0] // 32 + 2, size[1] // 32 + 2, generator=random)
    scores = F.interpolate(6 * noise, size, mode="bilinear", align_corners=True)
    return scores[0].softmax(0).numpy()


def compare_backends(
    images: Sequence[np.ndarray],
    probabilities: Sequence[np.ndarray],
    settings: Mapping[str, Options],
    threads: int = 1,
    rounds: int = 3,
) -> list[Row]:
    """Time every backend that works here; without pydensecrf our first one is the reference.

    Args:
        images: (H,W,3) uint8 each.
        probabilities: (C,H,W) each.
        settings: arguments of `DenseCRF` by the name of the setting.
        threads: CPU threads of a call, of torch too while this runs; pydensecrf always has one.
        rounds: how often every image is refined; a round before them is not timed.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = []
        for name, options in settings.items():
            density = median(_vertices(i, options) / (i.size // 3) for i in images)
            crfs = available(images[0], probabilities[0], {**options, "threads": threads})
            turns = [(Row(name, backend, threads, density), crf) for backend, crf in crfs.items()]
            for image, scores in [*zip(images, probabilities, strict=True)] * rounds:
                _take_turns(turns, image, scores)
            rows += [row for row, _ in turns]
        return rows
    finally:
        torch.set_num_threads(before)


def _take_turns(turns: list[tuple[Row, DenseCRF]], image: np.ndarray, scores: np.ndarray) -> None:
    expected = None
    for row, crf in turns:
        start = perf_counter()
        refined = crf(image, scores)
        row.seconds.append(perf_counter() - start)
        expected = refined if expected is None else expected
        row.ratios.append(turns[0][0].seconds[-1] / row.seconds[-1])
        row.max_difference = max(row.max_difference, float(np.abs(refined - expected).max()))
        same = float((refined.argmax(0) == expected.argmax(0)).mean())
        row.label_agreement = min(row.label_agreement, same)


def available(image: np.ndarray, scores: np.ndarray, options: Options) -> dict[str, DenseCRF]:
    """Return the backends that run here, the reference first, each warmed up on an image."""
    crfs: dict[str, DenseCRF] = {}
    for backend in ("pydensecrf", "native", "torch"):
        with suppress(CRFError):  # not installed
            crf = DenseCRF(**options, backend=backend)
            crf(image, scores)
            crfs.setdefault(crf.backend_for("cpu"), crf)
    return crfs


def _vertices(image: np.ndarray, options: Options) -> int:
    pixels = torch.from_numpy(np.array(image))[None]
    return bilateral_lattice(pixels, Parameters(**options)).num_vertices


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
