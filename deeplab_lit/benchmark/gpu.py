"""Check and measure on a GPU, in minutes: `benchmark gpu`, part by part, the worthiest first.

Each part runs in a process of its own, which ends at its share of the minutes: what fails there, or
runs out of memory or time, stops no other part.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

import torch
from jsonargparse.typing import PositiveFloat

from deeplab_lit.benchmark.equal_parts import backends, part_checks
from deeplab_lit.benchmark.equal_training import training_checks
from deeplab_lit.benchmark.equality import network_checks
from deeplab_lit.benchmark.gpu_crf import compare_crf
from deeplab_lit.benchmark.gpu_report import Options, Part
from deeplab_lit.benchmark.gpu_step import compare_compiled, compare_loading, compare_steps
from deeplab_lit.benchmark.gpu_training import train
from deeplab_lit.benchmark.meter import device_in_words
from deeplab_lit.cli.screen import quieten
from deeplab_lit.errors import UserError
from deeplab_lit.network.inference import device_of
from deeplab_lit.runs.folder import open_results_folder
from deeplab_lit.text import say

Name = Literal["equality", "step", "crf", "loader", "compile", "training"]
GRACE = 20  # seconds beyond its share in which a part may end by itself, and is ended then
LEAST = 20  # seconds without which no part is begun


class Task(NamedTuple):
    """A part.

    Attributes:
        title: what it shows.
        share: of all minutes that it may take; of what is left for the last.
        run: does it.
    """

    title: str
    share: float
    run: Callable[[Part, Options], None]


def check_equality(part: Part, options: Options) -> None:
    """Compare everything with the CPU: first what is small, last what has to be compiled."""
    missing = {"native", "pydensecrf"} - set(backends())
    for backend in sorted(missing):
        part.note(f"The CRF's backend {backend} does not work here: nothing is compared with it.")
    checks = [*network_checks(), *part_checks(), *training_checks()]
    if options.small:
        checks = [check for check in checks if check.is_small]
    checks.sort(key=lambda check: (check.name.endswith("compile"), not check.is_small))
    failed = 0
    for number, check in enumerate(checks):
        if not part.left():
            part.note(f"{len(checks) - number} of {len(checks)} checks were not reached.")
            break
        try:
            differences = check.differences(options.device)
            failures = check.failures(differences)
            worst = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        except Exception as error:  # one failing check must not hide the others
            failures, worst = [f"{type(error).__name__}: {str(error)[:200]}"], ""
        failed += bool(failures)
        verdict = "; ".join(failures).replace("\n", " ") or "equal"
        part.row(check=check.name, differences=worst, verdict=verdict)
    part.note(f"{failed} of the checks failed.")


TASKS: dict[Name, Task] = {
    "equality": Task("everything compared with the CPU", 0.2, check_equality),
    "step": Task("a training step beside a plain port", 0.18, compare_steps),
    "crf": Task("the CRF in batches beside one thread of the CPU", 0.12, compare_crf),
    "loader": Task("the loader beside the step", 0.06, compare_loading),
    "compile": Task("a compiled step beside a plain port", 0.12, compare_compiled),
    "training": Task("a training, and its scores", 1.0, train),
}


def gpu(
    minutes: PositiveFloat = 12.0,
    out: str = "gpu_benchmark",
    device: str = "cuda",
    camvid: str | None = None,
    weights: str | None = None,
    small: bool = False,
    parts: list[Name] | None = None,
) -> None:
    """Check that a GPU computes what the CPU does, and measure it, in so many minutes.

    Args:
        minutes: for all parts together; each has its share, the training what is left.
        out: folder of results.json and report.md, whole at any time; parts measured on the same
            device, with the same options and version of torch, may be added to it.
        device: cuda, cuda:1, … or, to see that all runs, cpu with `--small true`.
        camvid: CamVid's folder, to train on; None: the built-in Shapes.
        weights: file of VGG-16 to begin that training from; None: a small network from nothing.
        small: tiny sizes.
        parts: which; a single one runs in this process. None: all.
    """
    end = perf_counter() + 60 * minutes
    options = Options(_checked(device), small, Path(out), camvid, weights)
    open_results_folder(options.out, settings_of(options))  # else each part would fail at it
    chosen = list(parts or TASKS)
    if len(chosen) == 1:
        _run(chosen[0], options, 60 * minutes)
        return
    for name in chosen:
        left = end - perf_counter()
        seconds = min(60 * minutes * TASKS[name].share, left)
        if seconds < min(LEAST, 60 * minutes * TASKS[name].share):
            say(f"{name}: left out, {max(left, 0):.0f} s are left")
            continue
        _in_a_process(name, seconds, options)
    say(f"\nResults: {options.out / 'report.md'}, {options.out / 'results.json'}")


def settings_of(options: Options) -> dict[str, Any]:
    """Return what all parts in a folder have in common, so that one report can hold them."""
    return {
        "device": device_in_words(options.device),
        "torch": torch.__version__,
        "small": options.small,
        "camvid": options.camvid,
        "weights": options.weights,
    }


def _checked(name: str) -> torch.device:
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"--device {name}: torch {torch.__version__} sees no GPU here; to see that all runs, "
            "take --device cpu --small true"
        )
    return device_of(name)


def _run(name: Name, options: Options, seconds: float) -> None:
    """Run a part in this process; what fails is said in its results, and is no error."""
    quieten()
    task = TASKS[name]
    place = f"{list(TASKS).index(name) + 1}_{name}"
    part = Part(options.out, place, task.title, options.device, seconds)
    try:
        task.run(part, options)
    except Exception as error:
        part.note(f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:500]}")
        if not isinstance(error, UserError | RuntimeError | ImportError):
            raise
        return
    part.finish()


def _in_a_process(name: Name, seconds: float, options: Options) -> None:
    """Run a part in a process of its own, and end that where it does not end by itself."""
    words = [sys.executable, "-m", "deeplab_lit.benchmark", "gpu", f'--parts=["{name}"]']
    words += [f"--minutes={seconds / 60}", f"--out={options.out}", f"--device={options.device}"]
    words += [f"--small={str(options.small).lower()}"]
    words += [f"--camvid={options.camvid}"] if options.camvid else []
    words += [f"--weights={options.weights}"] if options.weights else []
    process = subprocess.Popen(words)
    try:
        if code := process.wait(seconds + GRACE):
            say(f"{name}: ended with code {code}: what it said stands above")
    except subprocess.TimeoutExpired:
        say(f"{name}: ended, {seconds:.0f} s are over")
    finally:
        process.terminate()  # of one that has ended: nothing
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
