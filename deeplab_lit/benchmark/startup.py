"""Time what users wait for before a command begins: its start in a fresh interpreter.

The commands take turns, each round runs all of them once, so that a busy machine slows all alike.
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

from jsonargparse.typing import PositiveInt

import deeplab_lit
from deeplab_lit.progress_bar import progress_bar

TORCH = ("-c", "import torch")
LIGHTNING = ("-c", "import lightning.pytorch")


class Start(NamedTuple):
    """A command to start, its baseline, and the ratio of times that it shall not exceed.

    Attributes:
        words: behind `python`.
        beside: words of the baseline, one of the other starts.
        goal: the largest ratio to the baseline that is all right; None for a baseline.
    """

    words: tuple[str, ...]
    beside: tuple[str, ...]
    goal: float | None = None


def _help(command: str) -> tuple[str, ...]:
    return ("-m", f"deeplab_lit.{command}", "--help")


STARTS = (
    Start(TORCH, TORCH),
    Start(("-m", "deeplab_lit"), TORCH, 0.15),
    Start(_help("ablate"), TORCH, 0.15),
    Start(_help("prepare"), TORCH, 0.15),
    Start(_help("convert"), TORCH, 0.15),
    Start(_help("predict"), TORCH, 1.3),
    Start(LIGHTNING, TORCH),
    Start(_help("fit"), LIGHTNING, 1.15),
)


def startup(rounds: PositiveInt = 5) -> None:
    """Compare the start of commands with the import of torch, and fit's with Lightning's.

    Args:
        rounds: starts of each that are measured, after one that is not.
    """
    compare_starts(rounds)


def compare_starts(rounds: int, starts: tuple[Start, ...] = STARTS) -> None:
    """Print the median seconds of each start, and its median ratio to its baseline in a round.

    Args:
        rounds: that are measured, after one that fills the disk's cache.
        starts: what is started.

    Raises:
        subprocess.CalledProcessError: a command fails.
    """
    seconds: dict[tuple[str, ...], list[float]] = {start.words: [] for start in starts}
    for number in progress_bar(range(rounds + 1), desc="rounds", unit="", leave=False):
        for start in starts:
            duration = _time(start.words)
            if number:
                seconds[start.words].append(duration)
    for words, beside, goal in starts:
        times = seconds[words]
        ratio = median(t / base for t, base in zip(times, seconds[beside], strict=True))
        missed = "" if goal is None or ratio <= goal else ": MISSED"
        aim = "" if goal is None else f", goal {goal}×{missed}"
        print(f"  {_name(words):<36} {median(times):6.2f} s {ratio:5.2f}× {_name(beside)}{aim}")


def _time(words: tuple[str, ...]) -> float:
    """Return the seconds that an interpreter takes for them, its own start included."""
    path = [str(Path(deeplab_lit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    start = perf_counter()
    subprocess.run([sys.executable, *words], env=environment, check=True, capture_output=True)
    return perf_counter() - start


def _name(words: tuple[str, ...]) -> str:
    return words[1] if words[0] == "-c" else " ".join(("python", *words))
