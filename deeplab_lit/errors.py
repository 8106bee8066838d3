"""What a user's mistake looks like: a sentence on stderr and exit code 2, no traceback."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from deeplab_lit.ablate.sweep import SweepError
from deeplab_lit.crf import CRFError
from deeplab_lit.data.image import DataError
from deeplab_lit.network.device import DeviceError
from deeplab_lit.network.graph import ExportError
from deeplab_lit.network.weights import WeightsError
from deeplab_lit.training.divergence import TrainingDiverged
from deeplab_lit.training.run_folder import RunFolderError
from deeplab_lit.whole import WriteError

MISTAKES = (
    CRFError,
    DataError,
    WeightsError,
    DeviceError,
    ExportError,
    RunFolderError,
    SweepError,
    TrainingDiverged,
    WriteError,
    MisconfigurationException,
    MemoryError,
)
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
OUT_OF_MEMORY = (
    "out of GPU memory. What helps in training: --data.batch_size smaller and "
    "--trainer.accumulate_grad_batches larger by the same factor, --trainer.precision bf16-mixed, "
    "--model.gradient_checkpointing true, fewer --model.scales; in evaluation: "
    "--eval.window 513, fewer --eval.scales."
)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn mistakes, full or forbidden disks and exhausted GPU memory into a sentence.

    Raises:
        SystemExit: code 2 after the sentence, 130 after Ctrl-C. Other exceptions pass: they are
            our bugs, and their traceback is wanted.
    """
    try:
        yield
    except MISTAKES as error:
        # a DataLoader's worker hands over its traceback as the message
        _refuse(str(error).rpartition(f"{type(error).__name__}: ")[2], error)
    except torch.OutOfMemoryError as error:
        _refuse(OUT_OF_MEMORY, error)
    except OSError as error:
        if error.errno not in DISK:
            raise
        place = error.filename or "the disk"
        _refuse(f"{place}: {error.strerror}. What was written before is kept.", error)
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning leaves with 1
            raise SystemExit(130) from stop
        raise


@contextmanager
def refused_arguments() -> Iterator[None]:
    """Around a parser's `instantiate`: what a class refuses becomes a mistake, in its own words.

    Raises:
        MISTAKES: the class's own error where it is one of them, else MisconfigurationException
            with its message; the parser wraps both in a ValueError with words of its own.
    """
    try:
        yield
    except ValueError as error:
        cause: BaseException = error
        while isinstance(cause.__cause__, ValueError) and not isinstance(cause, MISTAKES):
            cause = cause.__cause__
        if isinstance(cause, MISTAKES):
            raise cause from cause.__cause__
        raise MisconfigurationException(str(cause)) from error


def _refuse(message: str, error: BaseException) -> None:
    print(f"error: {message.strip()}", file=sys.stderr)
    raise SystemExit(2) from error
