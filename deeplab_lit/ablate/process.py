"""One step as a process: its lock, its log, where it goes on.

Words: a step is the training or the validation of a run, and has a folder of its own.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

from deeplab_lit.ablate.plan import Step
from deeplab_lit.ablate.progress import is_finished, share_done
from deeplab_lit.ablate.sweep import SweepError
from deeplab_lit.atomic import NoLocksError, lock
from deeplab_lit.runs.redact import redacted_words

FAILED = "failed: "  # how the log of a step that has failed ends


class Taken(Exception):
    """Another call runs a step, or has finished it."""


class Process:
    """A step that runs.

    The process holds a lock on its log as long as it lives, even where whoever started it was
    killed, so that nobody starts the same run a second time beside it.

    Args:
        step: what to run.
        environment: variables for the process, beside our own.

    Raises:
        Taken: another call runs it, or has finished it.
        OSError: there are too many processes or open files, or the disk is full.
        SweepError: this system has no such locks.

    Attributes:
        share_before: how much of it was done when it was started.
        interrupts: how often it has been asked to leave.
    """

    def __init__(self, step: Step, environment: dict[str, str]) -> None:
        self.step = step
        self.start = time.monotonic()
        self.interrupts = 0
        self.share_before = share_done(step)
        self.log = log_of(step)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            _lock(log)
            if is_finished(step):  # another call did, since ours looked
                raise Taken(f"{step.folder} is finished already")
            command = [sys.executable, "-m", f"deeplab_lit.{step.verb}", *_arguments(step)]
            log.write(f"$ {' '.join(redacted_words(command))}\n")
            log.flush()
            self.begin = log.tell()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | environment,
                pass_fds=[log.fileno()],
                start_new_session=True,  # Ctrl-C is ours to pass on, once
            )

    def ended(self) -> int | None:
        """The exit code; null while it runs."""
        return self.process.poll()

    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.start

    def interrupt(self) -> None:
        """Let it save and leave; a second time, let it leave at once."""
        self.interrupts += 1
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def note_failure(self) -> str:
        """Why the process has failed: the last thing it said, which its log then ends with."""
        why = self._last_word()
        with self.log.open("a") as log:
            log.write(f"{FAILED}{why}\n")
        return why

    def _last_word(self) -> str:
        with self.log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self.begin)
            lines = [line.strip() for line in file if line.strip()]
        said = [line for line in lines if line.startswith("error: ")]
        code = self.process.returncode
        return (said or lines or [f"it said nothing; exit code {code}"])[-1].removeprefix("error: ")


def log_of(step: Step) -> Path:
    """Where a step's output goes."""
    return step.folder.parent / "logs" / f"{step.folder.name}.log"


def failure(step: Step) -> str | None:
    """Why the step failed when it ran last, in this call or another; null if it did not."""
    try:
        lines = log_of(step).read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    last = lines[-1] if lines else ""
    return last.removeprefix(FAILED) if last.startswith(FAILED) else None


def runs_elsewhere(step: Step) -> bool:
    """Whether a process of another call holds the step's lock."""
    try:
        with log_of(step).open("a") as log:
            _lock(log)
    except FileNotFoundError:
        return False
    except Taken:
        return True
    return False


def _lock(log: TextIO) -> None:
    """Take the lock of an open log, which it and the processes that inherit it hold.

    Raises:
        Taken: another process has it.
        SweepError: this system has no such locks.
    """
    try:
        lock(log)
    except BlockingIOError as error:
        raise Taken(f"another process writes {log.name}") from error
    except NoLocksError as error:
        raise SweepError(
            f"ablate keeps runs apart by locks, but {error}: run it on Linux or macOS, or in WSL, "
            "in a folder on a local disk; --report works everywhere"
        ) from error


def _arguments(step: Step) -> list[str]:
    """The command line: anew, or on from the last checkpoint; what has none is put aside."""
    folder = step.folder
    goes_on = []
    if (folder / "checkpoints/last.ckpt").is_file():
        goes_on = ["--ckpt_path=last"]
    elif folder.exists():
        number = 1
        while (aside := folder.with_name(f"{folder.name}.aborted{number}")).exists():
            number += 1
        folder.rename(aside)
    place = [f"--runs_dir={folder.parents[1]}", f"--experiment={folder.parent.name}"]
    return [*step.args, *place, f"--run={folder.name}", *goes_on]
