"""End commands plainly: a sentence on stderr and exit code 2 for a user's mistake, no traceback.

Every part of the package may import this; it knows none of them but the terminal.
"""

import argparse
import errno
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from deeplab_lit.terminal import colored


class UserError(Exception):
    """Something that the user can mend; says the file or option, what was found, what to do."""


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
PLACE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY)
OUT_OF_GPU_MEMORY = (
    "out of GPU memory. What helps in training: --loader.batch_size smaller and "
    "--trainer.accumulate_grad_batches larger by the same factor, --trainer.precision bf16-mixed, "
    "--model.gradient_checkpointing true, fewer --model.scales; in evaluation: "
    "--eval.window 513, fewer --eval.scales."
)
OUT_OF_MEMORY = (
    "out of memory (RAM, or the room for shared memory). What helps: fewer --loader.num_workers or "
    "--num_workers, smaller --loader.batch_size and --loader.crop_size, smaller images, "
    "--eval.window 513."
)
OUT_OF_FILES = (
    "too many open files. What helps: `ulimit -n 65536` before the command, or fewer "
    "--loader.num_workers or --num_workers."
)
PORT_TAKEN = (
    "the port at which the processes of a training find each other is taken by another program: "
    "set the variable MASTER_PORT (torchrun: --master_port) to a free one, on all nodes the same, "
    "or unset it where one process is enough."
)
DEAD_WORKER = (
    "a process that reads data has died: if memory is short, fewer --loader.num_workers help. A "
    "training goes on with --ckpt_path last."
)
LOST_PROCESS = (
    "another process of this training was killed or has failed: what it said last stands above, "
    "and short memory is the usual reason. Checkpoints are kept: go on with --ckpt_path last."
)
SILENT_PROCESS = (
    "another process of this training has not answered, or has not come, for as long as is waited "
    "(half an hour): look at what the other processes or nodes said last. Checkpoints are kept: go "
    "on with --ckpt_path last."
)
NO_HOME = "there is no home folder: set the variable HOME to a folder that can be written."
# module → the extra of this package that installs it, as in requirements.txt
EXTRAS = {
    "onnxruntime": "export",
    "onnxscript": "export",
    "pycocotools": "coco",
    "wandb_workspaces": "dashboards",
}
# what libraries say, in exceptions of types that may be bugs of ours just as well
SENTENCES = {
    r"DefaultCPUAllocator|can't allocate memory|Insufficient memory|killed by signal: (Killed|Bus)"
    r"|unable to allocate shared memory|Cannot allocate memory": OUT_OF_MEMORY,
    r"DataLoader worker": DEAD_WORKER,
    r"EADDRINUSE|address already in use": PORT_TAKEN,
    r"(closed|reset) by peer|NCCL.*remote process": LOST_PROCESS,
    r"Timed out (waiting|after)|wait timeout|Socket Timeout": SILENT_PROCESS,
    r"Could not determine home directory|Can't determine home directory": NO_HOME,
    r"Too many open files": OUT_OF_FILES,
    r"embedded null (byte|character)": "the name of a file has a NUL character in it, which no "
    "file can have: look at the options and configurations.",
    r"surrogates not allowed": "an option or the name of a file is not valid UTF-8, and has to be "
    "written into a text: rename it.",
}


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what goes wrong for a reason outside the program into a sentence.

    Such are: mistakes of the user, full or forbidden disks, memory, files and ports that are
    taken, and an output that nobody reads any more.

    Raises:
        SystemExit: code 2 after the sentence, 130 after Ctrl-C. Other exceptions pass: they are
            our bugs, and their traceback is wanted.
    """
    for stream in (sys.stdout, sys.stderr):
        # a name that cannot be shown ends no command
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="backslashreplace")
    formatwarning, warnings.formatwarning = warnings.formatwarning, _as_a_sentence
    try:
        yield
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning leaves with 1
            raise SystemExit(130) from stop
        raise
    except Exception as error:
        sentence = explained(error)
        if sentence is None:
            raise
        if isinstance(error, BrokenPipeError):
            _output_nowhere()
        with suppress(OSError, ValueError):  # stderr may be closed
            print(colored(f"error: {sentence}", sys.stderr), file=sys.stderr, flush=True)
        raise SystemExit(2) from error
    finally:
        warnings.formatwarning = formatwarning


def _as_a_sentence(message: Warning | str, *args: Any, **kwargs: Any) -> str:
    """Return a warning as it is shown: what it says, without the place in the code."""
    return colored(f"WARNING: {' '.join(str(message).split())}\n", sys.stderr)


def explained(error: Exception) -> str | None:
    """Return the sentence for an exception; None where neither user nor machine is at fault."""
    misconfiguration = _imported(
        "lightning.fabric.utilities.exceptions", "MisconfigurationException"
    )
    if isinstance(error, (UserError, *misconfiguration)):
        # a DataLoader's worker hands over its traceback as the message
        return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return _of_an_extra(error.name.partition(".")[0])
    if isinstance(error, argparse.ArgumentError):
        return " ".join(str(error).split())
    if isinstance(error, _imported("torch", "OutOfMemoryError")):
        return OUT_OF_GPU_MEMORY
    if isinstance(error, MemoryError):
        request = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
        return f"{OUT_OF_MEMORY} ({request})" if request else OUT_OF_MEMORY
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, RuntimeError | ValueError) or type(error).__module__.startswith("cv2"):
        return next(
            (text for pattern, text in SENTENCES.items() if re.search(pattern, str(error))), None
        )
    return None


def _of_an_extra(module: str) -> str | None:
    """Return the sentence for a module that is missing; None for one that no extra installs."""
    extra = EXTRAS.get(module)
    return extra and (
        f"this needs {module.replace('_', '-')}, which is not installed: pip install "
        f'"deeplab_lit[{extra}]", or in a clone pip install -r requirements.txt.'
    )


def _imported(module: str, name: str) -> tuple[type[Exception], ...]:
    """Return a library's exception, as `isinstance` takes it; nothing where it is not imported.

    Importing torch and Lightning takes seconds, for which no sentence must wait.
    """
    found = getattr(sys.modules.get(module), name, None)
    return () if found is None else (found,)


def _of_the_system(error: OSError) -> str | None:
    """Return the sentence for an error of the system; None for one that may be a bug of ours."""
    number = error.errno
    if number is None and (match := re.search(r"\[Errno (\d+)\]", str(error))):
        number = int(match[1])  # handed over by a worker, as above
    if number in DISK:
        reason = error.strerror or os.strerror(number)
        return f"{error.filename or 'the disk'}: {reason}. What was written before is kept."
    if number in PLACE and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    sentences = {
        errno.EMFILE: OUT_OF_FILES,
        errno.ENFILE: OUT_OF_FILES,
        errno.ENOMEM: OUT_OF_MEMORY,
        errno.EADDRINUSE: PORT_TAKEN,
        errno.EPIPE: "what reads the output of this command has gone, so the command ends too.",
        errno.EAGAIN: "the system starts no further process: fewer --loader.num_workers or "
        "--num_workers, or a higher `ulimit -u`.",
    }
    return sentences.get(number) if number is not None else None


def _output_nowhere() -> None:
    """Let what is still to be written go nowhere: the interpreter writes it when it ends."""
    with suppress(OSError, ValueError):  # an output that is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def refused_trainer() -> Iterator[None]:
    """Turn what Lightning's trainer refuses, when it is made, into a mistake in its options.

    Raises:
        UserError: in Lightning's words.
    """
    try:
        yield
    except (TypeError, ValueError, RuntimeError, ImportError, AssertionError) as error:
        if explained(error) is not None:
            raise
        raise UserError(f"--trainer.…: {' '.join(str(error).split())}") from error


@contextmanager
def refused_arguments() -> Iterator[None]:
    """Turn what a class refuses, in a parser's `instantiate`, into a mistake, in its own words.

    Raises:
        UserError: the class's own error where it is one, else one with its message; the parser
            wraps both in a ValueError with words of its own.
    """
    try:
        yield
    except ValueError as error:
        cause: BaseException = error
        while isinstance(cause.__cause__, ValueError) and not isinstance(cause, UserError):
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from cause.__cause__
        raise UserError(str(cause)) from error


@contextmanager
def lasting_screen() -> Iterator[None]:
    """Let a command go on where its screen is closed, full or gone: no result is lost for that.

    What is written to stdout and stderr from then on goes nowhere.
    """
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Lasting, streams)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = streams


class Lasting:
    """A text stream that takes everything: what cannot be written is dropped.

    Args:
        stream: None: closed from the beginning.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or self._nowhere()

    def write(self, text: str) -> int:
        """Write, or drop, a text; returns its length."""
        try:
            self._stream.write(text)
        except (OSError, ValueError):  # ValueError: the stream itself was closed
            self._lose()
        return len(text)

    def flush(self) -> None:
        """Write, or drop, what is buffered."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._lose()

    def _lose(self) -> None:
        closed, self._stream = self._stream, self._nowhere()
        with suppress(OSError, ValueError):  # for what is buffered, and for libraries in C
            os.dup2(self._stream.fileno(), closed.fileno())

    def _nowhere(self) -> TextIO:
        return Path(os.devnull).open("w", encoding="utf-8")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
