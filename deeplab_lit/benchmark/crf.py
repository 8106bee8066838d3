"""Compare the CRF's backends with pydensecrf: image by image, or over the set of images."""

from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from deeplab_lit import load
from deeplab_lit.benchmark.crf_backends import SETTINGS, compare_backends
from deeplab_lit.benchmark.crf_pools import Samples, compare_pools
from deeplab_lit.data.check import spread
from deeplab_lit.data.image import read_image
from deeplab_lit.runs.folder import named_checkpoint
from deeplab_lit.segment.find_images import find_images
from deeplab_lit.text import plural


def crf(
    images: str,
    ckpt_path: str | None = None,
    num_images: PositiveInt = 20,
    num_classes: PositiveInt = 21,
    threads: PositiveInt = 1,
    rounds: PositiveInt = 1,
    whole_set: bool = False,
) -> None:
    """Compare the CRF's backends with pydensecrf, on the same images at three settings.

    Args:
        images: folder of photographs (searched through), spread over which some are taken.
        ckpt_path: network whose probabilities are refined; "last": the best of the newest run in
            runs/. None: smooth noise.
        num_images: how many.
        num_classes: of the noise.
        threads: of each call; pydensecrf always has one.
        rounds: how often every image is refined, after one that is not measured.
        whole_set: time the images as one set instead: `threads` images at a time, each on one
            thread, against pydensecrf in as many processes.
    """
    files = sorted(find_images([images], leave_out=Path("/nowhere")).values())
    pictures = [even_size(read_image(files[i])) for i in spread(len(files), num_images)]
    net = load(named_checkpoint(ckpt_path)) if ckpt_path else None
    scores = [probabilities(image, net, num_classes) for image in pictures]
    numbers = {"image": len(pictures), "class": len(scores[0]), "thread": threads, "round": rounds}
    print(", ".join(plural(number, noun) for noun, number in numbers.items()))
    if whole_set:
        _whole_set([*zip(pictures, scores, strict=True)], threads, rounds)
        return
    for row in compare_backends(pictures, scores, SETTINGS, threads, rounds):
        print(
            f"  {row.setting:<16} {row.backend:<10} {row.milliseconds:7.0f} ms an image "
            f"{row.ratio:5.2f}× as fast ({min(row.ratios):.2f}…{max(row.ratios):.2f})   "
            f"{row.vertices_per_pixel:.2f} vertices a pixel   "
            f"max|dQ| {row.max_difference:.0e}, labels equal {row.label_agreement:.5%}"
        )


def _whole_set(samples: Samples, workers: int, rounds: int) -> None:
    for setting, options in SETTINGS.items():
        for row in compare_pools(samples, options, workers, rounds):
            print(
                f"  {setting:<16} {row.backend:<10} "
                f"{1000 * median(row.seconds) / len(samples):7.0f} ms an image "
                f"{row.ratio:5.2f}× the throughput ({min(row.ratios):.2f}…{max(row.ratios):.2f})"
            )


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
