"""Refuse training images that do not fit into a batch, or batches that do not fit into memory."""

import math
import os
from collections.abc import Sequence

from deeplab_lit.data.check import Summary
from deeplab_lit.data.image import DataError
from deeplab_lit.data.transforms import TrainTransform

TRAINING_BYTES = 16  # a pixel of a batch at least: image, mask, and the image in float32


def refuse_mixed_scales(batch_size: int, transforms: Sequence[TrainTransform]) -> None:
    """Refuse whole images at several scales in one batch.

    Args:
        batch_size: images that each process takes at once.
        transforms: of the parts of the batch.

    Raises:
        ValueError: there would be some.
    """
    if batch_size > 1 and any(t.crop is None and not t.one_scale for t in transforms):
        raise ValueError(
            "crop_size whole with several scales gives images of several sizes, which "
            f"batch_size {batch_size} would put into one batch: set --loader.scales '[1.0]', or "
            "--loader.batch_size 1"
        )


def refuse_mixed_sizes(
    summary: Summary, transform: TrainTransform, batch_size: int, option: str
) -> None:
    """Refuse whole images of several sizes in one batch.

    Args:
        summary: of the images that have been read.
        transform: of these images.
        batch_size: images that each process takes at once.
        option: of the loader, that would bring them to one size.

    Raises:
        DataError: there are some.
    """
    sizes = len(summary.sizes)
    if batch_size > 1 and transform.crop is None and transform.resize is None and sizes > 1:
        raise DataError(
            f"{summary.title} has images of {sizes} sizes or more, and --loader.crop_size whole "
            f"cannot put {batch_size} of them into a batch: bring them to one size with "
            f"--loader.{option} '[HEIGHT, WIDTH]', or set --loader.batch_size 1"
        )


def refuse_beyond_memory(batch_size: int, transforms: Sequence[TrainTransform]) -> None:
    """Refuse batches that this machine cannot hold, instead of reading for them for hours.

    Args:
        batch_size: images that each process takes at once.
        transforms: of the parts of the batch; whole images, whose size is not known, do not count.

    Raises:
        ValueError: says how much memory they need and how much there is.
    """
    sizes = [size for transform in transforms if (size := transform.largest_output())]
    needed = TRAINING_BYTES * batch_size * sum(map(math.prod, sizes))
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return
    if needed > memory > 0:
        each = " and as many of ".join(f"{width}×{height}" for height, width in sizes)
        raise ValueError(
            f"a batch of {batch_size} crops of {each} takes at least {needed / 1e9:,.0f} GB, and "
            f"this machine has {memory / 1e9:,.0f}: set a smaller --loader.batch_size or "
            "--loader.crop_size"
        )
