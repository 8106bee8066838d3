"""Folders and lists that are there whole or not at all, and by one process at a time."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.image import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".prepare.lock"
TAKEN = (errno.EACCES, errno.EAGAIN)  # POSIX leaves the choice
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from preparing in a folder meanwhile.

    The lock is a POSIX one: the system lifts it however the process ends, and its workers do not
    hold it. Where there are none (Windows, some network disks) nobody is kept out, nor in a folder
    that nobody can write to.

    Raises:
        DataError: another process is at work there.
    """
    path = folder / LOCK
    try:
        file = path.open("a")
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        yield
        return
    with file:
        if not _lock(file) or not _is_at(file, path):
            raise DataError(
                f"{folder}: another process prepares a data set there just now. Wait for it, or "
                "choose another --root"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # still locked: who has opened it sees that it is gone


def _lock(file: TextIO) -> bool:
    """Take the lock of an open file; returns False where another process has it."""
    if fcntl is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in TAKEN
    return True


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether an open file has not been removed or replaced."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when the block ends without an error.

    Until then it is called <name>.part and stays there, so that the next run goes on in it.
    """
    part = path.with_name(f"{path.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    yield part
    part.rename(path)


def write_list(path: Path, ids: list[str]) -> None:
    """One image name a line."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{id}\n" for id in ids), "utf-8")
