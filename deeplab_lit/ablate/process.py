"""One step as a process of its own: its lock, its log, where it goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from deeplab_lit.ablate.plan import Step
from deeplab_lit.ablate.results import is_finished, share_done
from deeplab_lit.ablate.sweep import SweepError
from deeplab_lit.atomic import NoLocksError, lock
from deeplab_lit.text import redacted_words

FAILED = "failed: "  # how the log of a failed step ends
STATUSES = ("done", "running", "elsewhere", "waiting", "failed", "left out")


class TakenError(Exception):
    """A process of another call runs a step, or has finished it."""


class Process:
    """A running step.

    The process holds a lock on its log as long as it lives, even where its caller was killed, so
    that nobody starts the same run a second time beside it.

    Args:
        step: what to run.
        variables: environment variables for the process, beside those of this one.

    Raises:
        TakenError: a process of another call runs it, or has finished it.
        OSError: there are too many processes or open files, or the disk is full.
        SweepError: this system has no such locks.

    Attributes:
        share_before: how much of the step was done when it was started, 0…1.
        interrupts: how often it has been asked to leave.
    """

    def __init__(self, step: Step, variables: dict[str, str]) -> None:
        self.start = time.monotonic()
        self.interrupts = 0
        self.share_before = share_done(step)
        self.log = log_of(step)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            _lock(log)
            if is_finished(step):  # a process of another call was faster
                raise TakenError(f"{step.folder} is finished already")
            command = [sys.executable, "-m", f"deeplab_lit.{step.verb}", *_arguments(step)]
            log.write(f"$ {' '.join(redacted_words(command))}\n")
            log.flush()
            self.begin = log.tell()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | variables,
                pass_fds=[log.fileno()],
                start_new_session=True,  # Ctrl-C is ours to pass on, once
            )

    def exit_code(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self.process.poll()

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.start

    def interrupt(self) -> None:
        """Let it save and leave; when called a second time, leave at once."""
        self.interrupts += 1
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def record_failure(self) -> str:
        """Return why the process has failed, the last line that it wrote, and end the log so."""
        reason = self._last_line()
        with self.log.open("a") as log:
            log.write(f"{FAILED}{reason}\n")
        return reason

    def _last_line(self) -> str:
        with self.log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self.begin)
            lines = [line.strip() for line in file if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        silent = f"it said nothing; exit code {self.process.returncode}"
        return (errors or lines or [silent])[-1].removeprefix("error: ")


@dataclass
class State:
    """The state of a step.

    Attributes:
        status: one of STATUSES. "elsewhere": a process of another call runs it; "left out": the
            step before it has failed.
        process: process that runs it, or ran it last; None: none of this call has.
        seconds: how long that process took; None: it has not ended.
        reason: why it failed or was left out.
    """

    status: str = "waiting"
    process: Process | None = None
    seconds: float | None = None
    reason: str = ""


def log_of(step: Step) -> Path:
    """Return the file that a step's output goes to."""
    return step.folder.parent / "logs" / f"{step.folder.name}.log"


def failure_of(step: Step) -> str | None:
    """Return why a step failed when it ran last, in this call or another; None: it did not."""
    try:
        lines = log_of(step).read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    last = lines[-1] if lines else ""
    return last.removeprefix(FAILED) if last.startswith(FAILED) else None


def runs_elsewhere(step: Step) -> bool:
    """Return whether a process of another call holds the step's lock."""
    try:
        with log_of(step).open("a") as log:
            _lock(log)
    except FileNotFoundError:
        return False
    except TakenError:
        return True
    return False


def _lock(log: TextIO) -> None:
    """Take the lock of an open log, which this process and its children hold.

    Raises:
        TakenError: another process has it.
        SweepError: this system has no such locks.
    """
    try:
        lock(log)
    except BlockingIOError as error:
        raise TakenError(f"another process writes {log.name}") from error
    except NoLocksError as error:
        raise SweepError(
            f"ablate keeps runs apart by locks, but {error}: run it on Linux or macOS, or in WSL, "
            "in a folder on a local disk; --report works everywhere"
        ) from error


def _arguments(step: Step) -> list[str]:
    """Return the command line: a training goes on where it can, a validation begins anew.

    `fit --ckpt_path=last` begins at step 0 where the run has no checkpoint yet. A validation has
    nothing to go on from, and takes no folder that exists: an unfinished one is put aside.
    """
    folder = step.folder
    if step.verb == "validate" and folder.exists():
        number = 1
        while (aside := folder.with_name(f"{folder.name}.aborted{number}")).exists():
            number += 1
        folder.rename(aside)
    place = [f"--runs_dir={folder.parents[1]}", f"--experiment={folder.parent.name}"]
    resume = ["--ckpt_path=last"] if step.verb == "fit" else []
    return [*step.args, *place, f"--run={folder.name}", *resume]


def shares(slot: int, jobs: int, cores: int, gpus: Sequence[str]) -> dict[str, str]:
    """Return environment variables that share out cores and GPUs to processes side by side.

    Args:
        slot: index of the process, 0…jobs−1.
        jobs: processes at a time.
        cores: CPU cores of the machine.
        gpus: names of the GPUs, as in CUDA_VISIBLE_DEVICES.

    Returns:
        OMP_NUM_THREADS: the share of the cores; CUDA_VISIBLE_DEVICES: the share of the GPUs, at
        least one. Empty for a single process, which has all.
    """
    if jobs == 1:
        return {}
    variables = {"OMP_NUM_THREADS": str(max(cores // jobs, 1))}
    if gpus:
        chosen = list(gpus[slot::jobs]) or [gpus[slot % len(gpus)]]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return variables
