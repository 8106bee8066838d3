"""Measure a call: its seconds, those of the processor, its peak memory; and name the device."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import torch

from deeplab_lit.text import plural

FLOAT32 = "--precision float32"  # as it is typed


class Seconds(NamedTuple):
    """How long a call took.

    Attributes:
        wall: by the clock.
        processor: of all threads of this process together.
    """

    wall: float
    processor: float


def seconds_of(call: Callable[[], object]) -> Seconds:
    """Return how long a call takes; what it starts on a GPU it must wait for."""
    wall, processor = perf_counter(), process_time()
    call()
    return Seconds(perf_counter() - wall, process_time() - processor)


def device_in_words(device: torch.device) -> str:
    """Return "CPU, 2 threads", or the name of the GPU with the threads beside it."""
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else device.type.upper()
    return f"{name}, {plural(torch.get_num_threads(), 'thread')}"


def peak_memory(
    step: Callable[[], None], device: torch.device, warm_up: Callable[[], None] | None = None
) -> float | None:
    """Return the bytes that a step takes beyond those in use before it; None where unknown.

    Args:
        step: measured.
        device: on which it runs.
        warm_up: called first; what it leaves behind (gradients, momentum) counts, as if the step
            had made it, but not its peak. On a CPU its peak cannot be told apart: unknown.
    """
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        if warm_up is not None:
            warm_up()
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    if warm_up is not None:
        warm_up()
        step()
        return None
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
