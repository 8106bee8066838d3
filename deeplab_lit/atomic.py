"""Atomic writes, and locks. Every part of the package may import this.

A file or folder is complete under its name or absent. Writers that share a folder do not disturb
each other, and what fails leaves nothing behind.
"""

import errno
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module, or none

from deeplab_lit.errors import UserError

PREFIX = ".part-"  # of the folders in which files are written; a killed process leaves them
TAKEN = (errno.EACCES, errno.EAGAIN)  # POSIX leaves the choice


class WriteError(UserError, OSError):
    """Nothing can be written at a place; says where, why and what to do."""


class NoRoomError(UserError):
    """A disk has less room than is needed; says how much."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a place to write a file to; what is there when the block ends becomes `path`.

    Args:
        path: may exist, and stays as it is until then; folders are made. The temporary file has
            the same name, in a new folder beside it.

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


def check_room(path: Path, needed: int, option: str) -> None:
    """Refuse what would fill the disk.

    Args:
        path: what is to be written; the folder above it exists.
        needed: bytes.
        option: that names another place.

    Raises:
        NoRoomError: there is less room.
    """
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise NoRoomError(
            f"{path} needs {needed / 1e9:,.2f} GB, but {free / 1e9:,.2f} GB are free on that disk: "
            f"make room, or choose another {option}"
        )


def atomic_torch_save(content: Any, path: Path) -> None:
    """Write a PyTorch file atomically; folders are made.

    Raises:
        WriteError: nothing can be written there.
    """
    import torch

    buffer = io.BytesIO()  # torch reports a full disk in words of its own
    torch.save(content, buffer)
    with atomic_write(path) as place:
        place.write_bytes(buffer.getbuffer())


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which is renamed to `path` when the block ends without an error.

    Until then it is called <name>.part and stays there, so that the next run goes on in it.
    """
    part = path.with_name(f"{path.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    yield part
    part.rename(path)


class NoLocksError(OSError):
    """This system, or the file system on which a file lies, has no such locks."""


def lock(file: IO, *, inherited: bool = True) -> None:
    """Take the lock of an open file; the system drops it when its holders have ended, however.

    Args:
        file: open for writing.
        inherited: whether child processes hold it too (flock). A training is alive as long as one
            of its processes is, but a worker that outlives its killed parent must not keep the
            next run out: then take a lock of this process alone (POSIX). The two kinds do not
            see each other: use one for a file.

    Raises:
        BlockingIOError: another process holds it.
        NoLocksError: there are no such locks here.
    """
    if fcntl is None:
        raise NoLocksError("this system has no locks of the kind that is needed (fcntl)")
    take = fcntl.flock if inherited else fcntl.lockf
    try:
        take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            raise BlockingIOError(error.errno, error.strerror) from error
        raise NoLocksError(f"{file.name} lies on a file system without locks ({error})") from error
