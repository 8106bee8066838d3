"""Timing the backends against each other on the same images, interleaved.

Absolute times drift when a machine is shared, so backends take turns on every image, and what is
reported is the median of the ratios of neighbouring runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import numpy as np
import torch

from deeplab_lit.crf.dense_crf import DenseCRF
from deeplab_lit.crf.mean_field import bilateral_lattice
from deeplab_lit.crf.parameters import CRFError, Parameters

REFERENCE = "pydensecrf"
Options = Mapping[str, float | str]


@dataclass
class Row:
    """One backend at one setting, over all images and rounds."""

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
        """Median time of an image."""
        return 1000 * median(self.seconds)

    @property
    def ratio(self) -> float:
        """How many times faster than the reference: median over images and rounds."""
        return median(self.ratios)


def compare_backends(
    images: Sequence[np.ndarray],
    probabilities: Sequence[np.ndarray],
    settings: Mapping[str, Options],
    threads: int = 1,
    rounds: int = 3,
    on_image: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Time every backend that works here; without pydensecrf the first of ours is the reference.

    Args:
        images: (H,W,3) uint8 each.
        probabilities: (C,H,W) each.
        settings: arguments of `DenseCRF` by the name of the setting.
        threads: CPU threads of a call, of torch too while this runs; pydensecrf always has one.
        rounds: how often every image is refined; a round before them is not timed.
        on_image: called after each image, for a progress bar.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = []
        for name, options in settings.items():
            density = [_vertices_per_pixel(image, options) for image in images]
            crfs = _available(images[0], probabilities[0], options, threads)
            group = {b: Row(name, b, threads, median(density)) for b in crfs}
            for _ in range(rounds):
                for image, scores in zip(images, probabilities, strict=True):
                    _take_turns(group, crfs, image, scores)
                    on_image()
            rows += group.values()
        return rows
    finally:
        torch.set_num_threads(before)


def _take_turns(
    group: Mapping[str, Row], crfs: Mapping[str, DenseCRF], image: np.ndarray, scores: np.ndarray
) -> None:
    expected = reference = None
    for row, crf in zip(group.values(), crfs.values(), strict=True):
        start = perf_counter()
        refined = crf(image, scores)
        row.seconds.append(perf_counter() - start)
        if expected is None:
            expected, reference = refined, row.seconds[-1]
        row.ratios.append(reference / row.seconds[-1])
        row.max_difference = max(row.max_difference, float(np.abs(refined - expected).max()))
        same = float((refined.argmax(0) == expected.argmax(0)).mean())
        row.label_agreement = min(row.label_agreement, same)


def _available(
    image: np.ndarray, scores: np.ndarray, options: Options, threads: int
) -> dict[str, DenseCRF]:
    """The backends that run here, the reference first, each warmed up."""
    crfs = {}
    for backend in (REFERENCE, "native", "torch"):
        crf = DenseCRF(**options, backend=backend, threads=threads)
        try:
            crf(image, scores)
        except CRFError:
            continue
        crfs.setdefault(crf.backend_for("cpu"), crf)
    return crfs


def _vertices_per_pixel(image: np.ndarray, options: Options) -> float:
    pixels = torch.from_numpy(np.array(image))[None]
    lattice = bilateral_lattice(pixels, Parameters(**options))
    return lattice.num_vertices / (image.shape[0] * image.shape[1])
