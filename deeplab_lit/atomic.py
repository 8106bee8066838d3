"""Files that are there whole or not at all, and locks. Every part of the package may import this.

Writers that share a folder do not disturb each other, and what fails leaves nothing behind.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from deeplab_lit.errors import UserError

PREFIX = ".part-"  # of the folders in which files are written; a killed process leaves them


class WriteError(UserError, OSError):
    """Nothing can be written at a place; says where, why and what to do."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place to write to; what is there when the block ends becomes `path`.

    Args:
        path: may exist, and stays as it is until then; folders are made. The place has its name,
            in a folder of its own beside it.

    Raises:
        WriteError: nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=PREFIX, dir=path.parent)
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written ({error.strerror}): choose another place"
        ) from error
    with folder as place:
        yield Path(place) / path.name
        (Path(place) / path.name).replace(path)


def atomic_torch_save(content: Any, path: Path) -> None:
    """Write a PyTorch file whole or not at all; folders are made.

    Raises:
        WriteError: nothing can be written there.
    """
    import torch

    buffer = io.BytesIO()  # torch reports a full disk in words of its own
    torch.save(content, buffer)
    with atomic_write(path) as place:
        place.write_bytes(buffer.getbuffer())


class NoLocksError(OSError):
    """This system, or the file system on which a file lies, has no such locks."""


def lock(file: IO) -> None:
    """Take the lock of an open file, which it and the processes that inherit it hold.

    The system drops it when they have ended, however they ended.

    Raises:
        BlockingIOError: another process holds it.
        NoLocksError: there are no such locks here.
    """
    if fcntl is None:
        raise NoLocksError("this system has no locks of the kind that is needed (fcntl)")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        raise NoLocksError(f"{file.name} lies on a file system without locks ({error})") from error
