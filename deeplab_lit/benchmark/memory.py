"""Measure how much memory a call takes at its peak."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch


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
