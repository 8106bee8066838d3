"""Ask the processor whether half precision is worth it: a convolution timed in both precisions.

torch computes in bfloat16 on every processor, in some with instructions for it, in others by way of
float32, and what is slower depends on more than flags: AVX512-BF16 doubles the rate on AMD and not
on Intel, where AMX does; virtual machines hide AMX; some processors have forward passes alone. So
the question is put to torch itself, in some milliseconds, where half precision is asked for.
"""

import math
from collections.abc import Callable
from time import thread_time

import torch
from torch.nn import functional as F

from deeplab_lit.errors import UserError

CHANNELS, SIDE = 64, 32  # of a 3×3 convolution, 38 million multiply-adds forward
REPEATS = 10
# times float32's time: said; so slow that two passes show it
SLOWER, CLEARLY_SLOWER = 1.15, 5
NAMES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


def why_slow(
    dtype: torch.dtype, device: torch.device, instead: str, *, trains: bool = True
) -> str | None:
    """Return a sentence where half precision is slower than float32; None: it is not.

    Args:
        dtype: bfloat16 or float16; any other is not asked about.
        device: on which the network runs; only a CPU is asked.
        instead: what to take instead, as it is typed.
        trains: there are backward passes too.

    Raises:
        UserError: torch refuses to compute so on this processor.
    """
    if device.type != "cpu" or dtype not in NAMES:
        return None
    try:
        ratio = time_ratio(dtype, trains=trains)
    except RuntimeError as error:  # "DNNL does not support bf16/f16 backward on the platform ..."
        refused = f"{str(error).splitlines()[0]:.200}"
        raise UserError(
            f"{NAMES[dtype]} does not work on this processor ({refused}): take {instead}"
        ) from error
    if ratio <= SLOWER:
        return None
    return (
        f"{NAMES[dtype]} is slower than float32 on this processor: a 3×3 convolution takes "
        f"{ratio:.1f} times as long. Take {instead}"
    )


def time_ratio(dtype: torch.dtype, *, trains: bool = True) -> float:
    """Return the time of a convolution in a precision, divided by float32's.

    On one thread, whose own time counts: on a busy machine several would wait for each other in
    a loop. Of several passes the quickest counts: other work delays, and never hastens.

    Args:
        dtype: under autocast.
        trains: forward and backward, else forward alone.

    Raises:
        RuntimeError: torch does not compute so here.
    """
    images = torch.ones(1, CHANNELS, SIDE, SIDE, requires_grad=trains)
    weight = torch.ones(CHANNELS, CHANNELS, 3, 3, requires_grad=trains)

    def convolve(*, enabled: bool) -> None:
        with torch.autocast("cpu", dtype, enabled=enabled), torch.set_grad_enabled(trains):
            features = F.conv2d(images, weight, padding=1)
        if trains:
            features.sum().backward()

    full, half = math.inf, math.inf
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(REPEATS):
            full = min(full, _seconds(lambda: convolve(enabled=False)))
            half = min(half, _seconds(lambda: convolve(enabled=True)))
            if turn and half > CLEARLY_SLOWER * full:
                break
    finally:
        torch.set_num_threads(threads)
    return half / full


def _seconds(call: Callable[[], None]) -> float:
    begun = thread_time()
    call()
    return thread_time() - begun
