"""Time a training step on a GPU under each switch beside a plain port, and the loader beside it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from statistics import median
from time import perf_counter
from typing import Any

import torch

from deeplab_lit.benchmark.equality import distance, exact_float32
from deeplab_lit.benchmark.folded import folded
from deeplab_lit.benchmark.gpu_report import Options, Part
from deeplab_lit.benchmark.meter import seconds_of
from deeplab_lit.benchmark.plain_port import port_of
from deeplab_lit.benchmark.step import Batch, Switches, our_step, port_step
from deeplab_lit.benchmark.turns import Step, compare
from deeplab_lit.data import Folder, Shapes
from deeplab_lit.data.transforms import TrainTransform
from deeplab_lit.loading.batches import SegmentationDataset, build_loader
from deeplab_lit.loading.sampler import TrainStream
from deeplab_lit.network.deeplab import DeepLabV2

CLASSES, ROUNDS = 21, 10
BATCH, SIDE, SCALES = 10, 321, (1.0, 0.75, 0.5)
SMALL_BATCH, SMALL_SIDE, SMALL_SCALES = 2, 65, (1.0, 0.5)
BASELINE = "plain port, TF32"  # torch's default for convolutions on a GPU


def _network(options: Options) -> DeepLabV2:
    """Return ResNet-101 as published, with random weights; small: the smallest one."""
    torch.manual_seed(0)
    if not options.small:
        return DeepLabV2(CLASSES, scales=SCALES).to(options.device)
    small: dict[str, Any] = {"backbone": "resnet10_quarter", "atrous_rates": (2, 4)}
    return DeepLabV2(CLASSES, scales=SMALL_SCALES, **small).to(options.device)


def _batch(net: DeepLabV2, options: Options) -> Batch:
    size = (SMALL_BATCH, SMALL_SIDE) if options.small else (BATCH, SIDE)
    return Batch.of_noise(net, *size)


def compare_steps(part: Part, options: Options) -> None:
    """Time the step under every switch that needs no compiler."""
    net = _network(options)
    batch = _batch(net, options)
    bfloat16, float16 = torch.bfloat16, torch.float16
    last, amp = Switches(channels_last=True), Switches(amp=True, channels_last=True)
    fold = folded(net)
    steps = {
        BASELINE: _in_tf32(port_step(port_of(net), batch)),
        "plain port, float32": _exact(port_step(port_of(net), batch)),
        "ours, TF32": _in_tf32(our_step(deepcopy(net), Switches(), bfloat16, batch)),
        "ours, float32": _exact(our_step(deepcopy(net), Switches(), bfloat16, batch)),
        "ours, TF32, channels_last": _in_tf32(our_step(deepcopy(net), last, bfloat16, batch)),
        "ours, bfloat16": our_step(deepcopy(net), Switches(amp=True), bfloat16, batch),
        "ours, bfloat16, channels_last": our_step(deepcopy(net), amp, bfloat16, batch),
        "ours, float16, channels_last": our_step(deepcopy(net), amp, float16, batch),
        "ours, bfloat16, channels_last, recompute": our_step(
            deepcopy(net), amp._replace(recompute=True), bfloat16, batch
        ),
        "folded, TF32": _in_tf32(our_step(deepcopy(fold), Switches(), bfloat16, batch)),
        "folded, TF32, channels_last": _in_tf32(our_step(deepcopy(fold), last, bfloat16, batch)),
        "folded, bfloat16, channels_last": our_step(deepcopy(fold), amp, bfloat16, batch),
    }
    if options.small:  # float16 is slow on a CPU
        del steps["ours, float16, channels_last"]
    _rows(part, steps, batch, options)
    with torch.no_grad(), exact_float32():
        apart = distance(fold(batch.images), net(batch.images))
    part.note(f"Folded normalization changes the logits by {apart:.0e} of their norm (float32).")


def compare_compiled(part: Part, options: Options) -> None:
    """Time the compiled step: a compilation of ResNet-101 at several sizes takes a minute or more.

    Small: nothing is compiled.
    """
    net = _network(options)
    batch = _batch(net, options)
    switches = Switches(amp=True, channels_last=True, compile=not options.small)
    steps = {
        BASELINE: _in_tf32(port_step(port_of(net), batch)),
        "ours, bfloat16, channels_last, compile": our_step(
            deepcopy(net), switches, torch.bfloat16, batch
        ),
    }
    start = perf_counter()
    _rows(part, steps, batch, options)
    part.note(f"With all compilations: {perf_counter() - start:.0f} s.")


def _rows(part: Part, steps: Mapping[str, Step], batch: Batch, options: Options) -> None:
    """Time the steps, and add a row for each."""
    number = len(batch.mask)
    rows = compare(steps, options.device, 1 if options.small else ROUNDS, part.left())
    for row in rows:
        if not row.seconds:
            part.row(step=row.name, note=row.note)
            continue
        seconds = median(each.wall for each in row.seconds)
        memory = "not known" if row.memory is None else f"{row.memory / 2**30:.2f} GiB"
        spread = f"{min(row.ratios):.2f}…{max(row.ratios):.2f}"
        part.row(
            step=row.name,
            a_step=f"{1000 * seconds:.1f} ms",
            images_a_second=f"{number / seconds:.1f}",
            beside_the_port=f"{median(row.ratios):.2f}× ({spread})",
            peak_memory=memory,
            note=row.note,
        )
    side = batch.images.shape[-1]
    part.note(f"{number} images of {side}×{side}, medians of interleaved steps.")


@contextmanager
def _tf32() -> Iterator[None]:
    """Let convolutions and products of float32 be computed in TF32 on a GPU."""
    with exact_float32():  # which puts all back
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        yield


def _in_tf32(step: Step) -> Step:
    def run() -> None:
        with _tf32():
            step.run()

    return step._replace(run=run)


def _exact(step: Step) -> Step:
    def run() -> None:
        with exact_float32():
            step.run()

    return step._replace(run=run)


def compare_loading(part: Part, options: Options) -> None:
    """Time the loader alone, and the step fed by it: how long the device waits for images."""
    net = _network(options)
    batch = _batch(net, options)
    number, side = len(batch.mask), batch.images.shape[-1]
    data = Folder(options.camvid, void=11) if options.camvid else Shapes(train_size=640)
    dataset = SegmentationDataset(
        data.training(), TrainTransform(side, (0.5, 0.75, 1.0, 1.25, 1.5))
    )
    amp = Switches(amp=not options.small, channels_last=True)
    step = our_step(net, amp, torch.bfloat16, batch).run
    step()
    alone = median(seconds_of(step).wall for _ in range(3))
    part.note(
        f"{data.title}, crop {side}, batch {number}; the step takes {1000 * alone:.1f} ms, "
        f"{number / alone:.0f} images/s."
    )
    cores = os.cpu_count() or 1
    for workers in (0,) if options.small else (1, 4, 8, min(16, cores)):
        if not part.left():
            part.note("The time is over: more workers were not tried.")
            return
        batches = 3 if options.small else 60
        loading = _loading(dataset, number, workers, batches, options.device)
        rate = number * batches / loading
        fed = _fed(dataset, number, workers, batches, options.device, step)
        part.row(
            workers=workers,
            loader=f"{rate:.0f} images/s",
            of_the_step=f"{rate * alone / number:.2f}×",
            fed_step=f"{1000 * fed / batches:.1f} ms",
            device_waits=f"{max(1 - alone * batches / fed, 0):.0%}",
        )


def _batches(
    dataset: SegmentationDataset, size: int, workers: int, number: int, device: torch.device
) -> Iterator[None]:
    """Load batches and move each to the device; so many after the first `yield`.

    Before it go one more than the workers make in advance, which take no time later.
    """
    stream = TrainStream(dataset, batch_size=size)
    loader = build_loader(dataset, stream, size, workers, keep_workers=True)
    begun = 1 + workers * (loader.prefetch_factor or 0)
    taken = 0
    while True:
        for batch in loader:
            batch["image"].to(device, non_blocking=True)
            batch["mask"].to(device, non_blocking=True)
            taken += 1
            if taken >= begun:
                yield
            if taken == begun + number:
                return


def _loading(
    dataset: SegmentationDataset, size: int, workers: int, number: int, device: torch.device
) -> float:
    """Return the seconds that the loader alone takes for so many batches."""
    batches = _batches(dataset, size, workers, number, device)
    next(batches)
    return seconds_of(lambda: list(batches)).wall


def _fed(
    dataset: SegmentationDataset,
    size: int,
    workers: int,
    number: int,
    device: torch.device,
    step: Any,
) -> float:
    """Return the seconds of so many steps, each after a batch has come from the loader."""
    batches = _batches(dataset, size, workers, number, device)
    next(batches)
    return seconds_of(lambda: [step() for _ in batches]).wall
