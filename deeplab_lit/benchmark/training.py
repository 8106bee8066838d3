"""Measure a training: a step under a setting beside the plain one, and how fast samples are made.

Samples are made beside the pipeline that most ports write.
"""

import ctypes
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from deeplab_lit.data.decode import FORMATS
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.transforms import TrainTransform
from deeplab_lit.data.voc import VOC
from deeplab_lit.loading.batches import SegmentationDataset, collate
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.text import plural
from deeplab_lit.training.loss import deeplab_loss
from deeplab_lit.training.optimizer import build_optimizer, parameter_groups

BATCH = 8
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
MEAN_BGR = np.array([104.008, 116.669, 122.675], np.float32)


def compare_steps(
    net: DeepLabV2,
    variant: DeepLabV2,
    *,
    name: str,
    precision: str,
    batch_size: int,
    crop_size: int,
    rounds: int,
) -> None:
    """Print both networks' median time, images a second, and peak memory, and the ratios.

    Args:
        net: trained in float32.
        variant: the same network under other settings, on the same device.
        name: of those settings.
        precision: of the variant: float32, bfloat16 or float16.
        batch_size: images in a step.
        crop_size: their side in pixels.
        rounds: steps of each that are measured, taking turns, after one that is not.
    """
    steps = {
        "float32": _step(net, torch.float32, batch_size, crop_size),
        name: _step(variant, getattr(torch, precision), batch_size, crop_size),
    }
    device = net.preprocess.mean.device
    times: dict[str, list[float]] = {name: [] for name in steps}
    memory: dict[str, float | None] = {}
    for turn in range(rounds + 1):
        for label, step in steps.items():
            start = perf_counter()
            if turn == 0:
                memory[label] = peak_memory(step, device)
                continue
            step()
            times[label].append(perf_counter() - start)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    size = f"{batch_size} image{'s' * (batch_size > 1)} of {crop_size}×{crop_size}"
    threads = torch.get_num_threads()
    where += f", {threads} thread{'s' * (threads > 1)}"
    print(f"{size}, {where}, median of {rounds} step{'s' * (rounds > 1)}")
    base, base_memory = times["float32"], memory["float32"]
    for label, values in times.items():
        speed = median(b / t for b, t in zip(base, values, strict=True))
        peak = memory[label]
        words = ""
        if peak is not None and base_memory is not None:
            words = f"{peak / 2**30:6.2f} GiB {peak / base_memory:5.2f}×"
        rate = f"{median(values):7.3f} s a step {batch_size / median(values):8.2f} images/s"
        print(f"  {label:<40} {rate} {speed:5.2f}× as fast {words}")


def _step(net: DeepLabV2, dtype: torch.dtype, batch_size: int, crop: int) -> Callable[[], None]:
    """Return a function: forward, loss, backward and update on one batch of noise."""
    torch.manual_seed(0)
    device = net.preprocess.mean.device
    net.train()
    optimizer = build_optimizer(parameter_groups(net, lr=1e-6, weight_decay=5e-4, head_lr_mult=10))
    mask = torch.randint(net.num_classes, (batch_size, crop, crop), dtype=torch.uint8).to(device)
    images = torch.randint(256, (batch_size, crop, crop, 3), dtype=torch.uint8).to(device)
    images = images.permute(0, 3, 1, 2)

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = net.logits(images)
        optimizer.zero_grad()
        deeplab_loss(logits, mask, align_corners=net.align_corners).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def peak_memory(step: Callable[[], None], device: torch.device) -> float | None:
    """Return the bytes that a step takes beyond those in use before it; None where unknown."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: start the peak afresh
        before = _kibibytes("VmRSS")
    except (OSError, AttributeError):
        step()
        return None
    step()
    return 1024 * (_kibibytes("VmHWM") - before)


def _kibibytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def compare_pipelines(root: str, crop_size: int, rounds: int) -> None:
    """Print milliseconds an image, from files to collated batches, on one thread.

    Args:
        root: PASCAL VOC 2012.
        crop_size: side of the crop in pixels.
        rounds: passes of each pipeline that are measured, taking turns.

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
