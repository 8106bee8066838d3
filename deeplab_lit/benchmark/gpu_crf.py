"""Time the CRF in batches on a GPU beside one thread of the CPU, and count what it waits for."""

import warnings
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch

from deeplab_lit.benchmark.crf_backends import SETTINGS
from deeplab_lit.benchmark.equal_parts import backends, crf_input
from deeplab_lit.benchmark.gpu_report import Options, Part
from deeplab_lit.crf.dense_crf import Backend, DenseCRF

SIZE, CLASSES, BATCHES = (375, 500), 21, (1, 4, 8, 16)
SMALL_SIZE, SMALL_CLASSES, SMALL_BATCHES = (16, 24), 3, (1, 2)
ROUNDS = 5
GOAL = 100  # times one thread of the CPU
WARNING = "synchronizing CUDA operation"  # as torch words it


class Profile(NamedTuple):
    """Hold what a call makes the device and its host do.

    Attributes:
        operations: of torch, those inside others included.
        launches: of kernels; 0 on a CPU.
        waits: of the host for the device; 0 on a CPU.
        busy: seconds in which kernels ran; 0 on a CPU.
    """

    operations: int
    launches: int
    waits: int
    busy: float


def compare_crf(part: Part, options: Options) -> None:
    """Time every batch at every setting, the released one first, beside the CPU's backends.

    The images are drawn, so that nothing must be carried; their lattices have as many vertices a
    pixel as the rows say.
    """
    device = options.device
    size = SMALL_SIZE if options.small else SIZE
    classes = SMALL_CLASSES if options.small else CLASSES
    batches = SMALL_BATCHES if options.small else BATCHES
    images, probabilities = crf_input(max(batches), size, classes)
    on_cpu: list[Backend] = [backend for backend in backends() if backend != "torch"] or ["torch"]
    threads = torch.get_num_threads()
    for setting, values in reversed(SETTINGS.items()):
        torch.set_num_threads(1)
        seconds = {}
        for backend in reversed(on_cpu):  # pydensecrf before native
            crf = DenseCRF(**values, backend=backend, threads=1)
            call = _call(crf, images[0], probabilities[0])
            call()  # keeps the lattice of positions, as the device's backend does
            seconds[backend] = median(_seconds(call, device) for _ in range(2))
            part.row(
                setting=setting,
                what=f"{backend}, one thread",
                an_image=f"{1000 * seconds[backend]:.1f} ms",
            )
        torch.set_num_threads(threads)
        reference = next(iter(seconds))
        crf = DenseCRF(**values, backend="torch")
        for batch in batches:
            if not part.left():
                part.note("The minutes are over: further batches were not reached.")
                return
            there = images[:batch].to(device), probabilities[:batch].to(device)
            call = _call(crf, *there)
            call()  # chooses kernels, and keeps the lattice of positions
            each = median(_seconds(call, device) for _ in range(ROUNDS)) / batch
            profile = profiled(call, device)
            busy = f"{profile.busy / (each * batch):.0%}" if profile.busy else "not known"
            part.row(
                setting=setting,
                what=f"torch on {device}, batch {batch}",
                an_image=f"{1000 * each:.2f} ms",
                **{f"beside_{name}": f"{theirs / each:.3g}×" for name, theirs in seconds.items()},
                launches=profile.launches or f"{profile.operations} operations",
                waits=profile.waits,
                kernels_run=busy,
            )
        speed = seconds[reference] / each
        goal = "reached" if speed >= GOAL else "missed"
        part.note(f"{setting}: {speed:.3g}× {reference} on one thread; goal {GOAL}×: {goal}.")


def _call(crf: DenseCRF, image: torch.Tensor, probabilities: torch.Tensor) -> Callable[[], object]:
    return lambda: crf(image, probabilities)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return how long a call takes, until the device is done."""
    _wait(device)
    start = perf_counter()
    call()
    _wait(device)
    return perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def profiled(call: Callable[[], object], device: torch.device) -> Profile:
    """Run a call twice, and count what it does: once for the waits, once for the rest."""
    on_gpu = device.type == "cuda"
    waits = _waits(call) if on_gpu else 0
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if on_gpu else []
    with torch.profiler.profile(activities=activities) as profiler:
        call()
        _wait(device)
    events = list(profiler.key_averages())
    on_device = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    return Profile(
        operations=sum(e.count for e in events if e.key.startswith("aten::")),
        launches=sum(e.count for e in events if e.key.startswith(("cudaLaunch", "cuLaunch"))),
        waits=waits,
        busy=sum(e.self_device_time_total for e in on_device) / 1e6,
    )


def _waits(call: Callable[[], object]) -> int:
    """Return how often the host waits for the device in a call, as far as torch tells."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum(WARNING in str(warning.message) for warning in seen)
