"""Time the CRF's backends against each other, image by image.

They take turns on the same images. Absolute times drift where a machine is shared; the median ratio
of neighboring runs does not.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from deeplab_lit.crf.dense_crf import DenseCRF
from deeplab_lit.crf.mean_field import bilateral_lattice
from deeplab_lit.crf.parameters import CRFError, Parameters
from deeplab_lit.progress_bar import progress_bar

Options = Mapping[str, Any]  # arguments of `DenseCRF`
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
            todo = [*zip(images, probabilities, strict=True)] * rounds
            for image, scores in progress_bar(todo, desc=name, unit=" images", leave=False):
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
