"""Measure how fast training samples are made, beside the pipeline that most ports write."""

from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

import cv2
import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from PIL import Image
from torch.utils.data import default_collate

from deeplab_lit.data.decode import FORMATS
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.transforms import TrainTransform
from deeplab_lit.data.voc import VOC
from deeplab_lit.loading.batches import SegmentationDataset, collate
from deeplab_lit.text import plural

BATCH = 8
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
MEAN_BGR = np.array([104.008, 116.669, 122.675], np.float32)


def data(root: str, crop_size: PositiveInt = 321, rounds: PositiveInt = 5) -> None:
    """Compare training samples a second of one core with those of the usual OpenCV pipeline.

    Args:
        root: PASCAL VOC 2012 (see data VOC); its train split is read.
        crop_size: side of the crop in pixels.
        rounds: passes over the split of each pipeline that are measured, after one that is not.

    Raises:
        DataError: no data there.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    split = VOC(root).split("train")
    ours = SegmentationDataset(split, TrainTransform(crop_size, SCALES), seed=0)
    variants: dict[str, Callable[[int], Iterator]] = {
        "deeplab_lit": lambda seed: (ours[seed * len(split.ids) + i, i] for i in range(len(ours))),
        "OpenCV, float32": lambda seed: _usual(split, crop_size, seed, as_float=True),
        "OpenCV, uint8": lambda seed: _usual(split, crop_size, seed, as_float=False),
    }
    collates = (collate, default_collate, default_collate)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):  # the first warms the disk cache up
        for (name, samples), to_batch in zip(variants.items(), collates, strict=True):
            start = perf_counter()
            batch = []
            for sample in samples(turn):
                batch.append(sample)
                if len(batch) == BATCH:
                    to_batch(batch)
                    batch = []
            if turn:
                times[name].append((perf_counter() - start) / len(split.ids) * 1000)
    images, turns = plural(len(split.ids), "image"), plural(rounds, "round")
    print(f"{images}, crop {crop_size}, one thread, median of {turns}")
    for name, values in times.items():
        ratio = median(t / base for t, base in zip(values, times["deeplab_lit"], strict=True))
        print(f"  {name:<16} {median(values):6.2f} ms an image   {ratio:.2f}×")


def _usual(split: FileSplit, crop: int, seed: int, *, as_float: bool) -> Iterator[tuple]:
    """Decode, resize the whole image, pad, crop, flip: what this project does not do."""
    rng = np.random.default_rng(seed)
    for pair in split.pairs:
        image = cv2.imread(str(pair.image), cv2.IMREAD_COLOR)
        assert image is not None, pair.image
        if as_float:
            image = image.astype(np.float32)
        mask = np.asarray(Image.open(pair.mask, formats=FORMATS))
        mask = mask.astype(np.int32) if as_float else mask
        scale = rng.choice(SCALES)
        h, w = int(mask.shape[0] * scale), int(mask.shape[1] * scale)
        image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        resized = Image.fromarray(mask).resize((w, h), Image.Resampling.NEAREST)
        mask = np.asarray(resized, np.int64 if as_float else np.uint8)
        bottom, right = max(crop - h, 0), max(crop - w, 0)
        if bottom or right:
            sides = (0, bottom, 0, right, cv2.BORDER_CONSTANT)
            image = cv2.copyMakeBorder(image, *sides, value=MEAN_BGR.tolist())
            mask = np.pad(mask, ((0, bottom), (0, right)), constant_values=255)
        y = rng.integers(mask.shape[0] - crop + 1)
        x = rng.integers(mask.shape[1] - crop + 1)
        image, mask = image[y : y + crop, x : x + crop], mask[y : y + crop, x : x + crop]
        if rng.random() < 0.5:
            image, mask = np.fliplr(image), np.fliplr(mask)
        if as_float:
            image = image - MEAN_BGR
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        yield image, np.ascontiguousarray(mask), pair.id
