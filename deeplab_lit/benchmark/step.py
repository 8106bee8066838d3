"""Measure a training step under a setting beside the plain one."""

from collections.abc import Callable
from copy import deepcopy
from statistics import median
from time import perf_counter
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveInt

from deeplab_lit.benchmark.memory import peak_memory
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.training.loss import deeplab_loss
from deeplab_lit.training.optimizer import build_optimizer, parameter_groups


def step(
    batch_size: PositiveInt = 2,
    crop_size: PositiveInt = 321,
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16",
    device: str = "cpu",
    rounds: PositiveInt = 5,
    compile: bool = False,
    channels_last: bool = True,
    gradient_checkpointing: bool = False,
    **network: Any,
) -> None:
    """Compare time and memory of a training step with float32 without any of the options.

    Args:
        batch_size: images in a step.
        crop_size: their side in pixels.
        precision: of autocast.
        device: cpu, cuda, …
        rounds: steps of each variant that are measured, after one that is not.
        compile: see DeepLabModule.
        channels_last: see DeepLabV2.
        gradient_checkpointing: see DeepLabV2.
        network: of DeepLabV2, for both. The classes are PASCAL VOC's 21.
    """
    plain = DeepLabV2(21, **network).to(device)
    variant = deepcopy(plain)
    names: list[str] = [precision]
    if channels_last:
        names.append("channels_last")
        variant.memory_format = torch.channels_last
        variant.to(memory_format=torch.channels_last)
    if gradient_checkpointing:
        names.append("gradient_checkpointing")
        variant.backbone.gradient_checkpointing = True
    if compile:
        names.append("compile")
        variant.compile()
    compare_steps(
        plain,
        variant,
        name=" ".join(names),
        precision=precision,
        batch_size=batch_size,
        crop_size=crop_size,
        rounds=rounds,
    )


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
