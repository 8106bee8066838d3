"""Measure how fast training samples are made, beside the pipelines that others write."""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import cv2
import torch
from jsonargparse.typing import PositiveInt
from torch.utils.data import default_collate

from deeplab_lit.benchmark.meter import Seconds, seconds_of
from deeplab_lit.benchmark.pipelines import PIPELINES, SCALES, Samples, decoded, missing
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.image import DataError
from deeplab_lit.data.transforms import TrainTransform
from deeplab_lit.data.voc import VOC
from deeplab_lit.errors import UserError, refused_arguments
from deeplab_lit.loading.batches import SegmentationDataset, collate
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.text import plural

BATCH = 8


class Variant(NamedTuple):
    """A way to make samples, and batches of them.

    Attributes:
        samples: makes the samples of an epoch, of a seed.
        collate: makes a batch of a list of them.
    """

    samples: Callable[[int], Samples]
    collate: Callable[[list[Any]], Any]


def data(root: str, crop_size: PositiveInt = 321, rounds: PositiveInt = 5) -> None:
    """Compare the making of training samples with OpenCV, torchvision v2 and albumentations.

    All on one thread, from files to batches; and beside them how long the files take to decode. Of
    albumentations, which needs `pip install albumentations`, nothing where it is not installed.

    Args:
        root: PASCAL VOC 2012 (see data VOC); its train split is read.
        crop_size: side of the crop in pixels.
        rounds: passes over the split of each pipeline that are measured, after one that is not.

    Raises:
        UserError: no data there, or a crop that no network takes.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    split = voc_split(root, "train")
    with refused_arguments():
        variants = _variants(split, crop_size)
    passes: dict[str, list[Seconds]] = {name: [] for name in variants}
    number = (rounds + 1) * len(variants)
    with progress_bar(desc="measuring", total=number, unit=" passes", leave=False) as progress:
        for turn in range(rounds + 1):  # the first warms the disk cache up
            for name, variant in variants.items():
                took = seconds_of(partial(_make_batches, variant, turn))
                if turn:
                    passes[name].append(took)
                progress.update()
    images, turns = plural(len(split.ids), "image"), plural(rounds, "round")
    print(f"{images}, crop {crop_size}, one thread, medians of {turns} and their ranges")
    ours = passes["deeplab_lit"]
    for name, measured in passes.items():
        ratios = [t.wall / base.wall for t, base in zip(measured, ours, strict=True)]
        wall, processor = (1000 * median(s) / len(split.ids) for s in zip(*measured, strict=True))
        print(
            f"  {name:<16} {median(ratios):5.2f}× the time ({min(ratios):.2f}…{max(ratios):.2f})  "
            f"{wall:6.2f} ms an image, {processor:6.2f} ms of the processor"
        )
    if sentence := missing():
        print(f"  {sentence}")


def voc_split(root: str, name: str) -> FileSplit:
    """Return a split of PASCAL VOC 2012.

    Args:
        root: what stands behind `--root`.
        name: of the split.

    Raises:
        UserError: it is not there, said of the option that the benchmarks have.
    """
    try:
        return VOC(root).split(name)
    except DataError as error:
        raise UserError(str(error).replace("--data.root", "--root")) from error


def _variants(split: FileSplit, crop: int) -> dict[str, Variant]:
    """Return ours, the decoding alone, and the others that are installed."""
    dataset = SegmentationDataset(split, TrainTransform(crop, SCALES), seed=0)
    number = len(split.ids)
    variants = {
        "deeplab_lit": Variant(
            lambda t: (dataset[t * number + i, i] for i in range(number)), collate
        ),
        "decoding alone": Variant(partial(decoded, split, crop), lambda _: None),
    }
    for name, pipeline in PIPELINES.items():
        if name != "albumentations" or missing() is None:
            variants[name] = Variant(partial(pipeline, split, crop), default_collate)
    return variants


def _make_batches(variant: Variant, turn: int) -> None:
    """Make the batches of a pass over the split; what is left at its end makes none."""
    batch = []
    for sample in variant.samples(turn):
        batch.append(sample)
        if len(batch) == BATCH:
            variant.collate(batch)
            batch = []
