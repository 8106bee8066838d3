"""Official archives, where they are taken from, and the folder that they are unpacked in."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from deeplab_lit.atomic import NoLocksError, lock
from deeplab_lit.data.image import DataError
from deeplab_lit.download import DownloadError, download
from deeplab_lit.progress_bar import digest_of

LOCK = ".prepare.lock"
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Archive:
    """A file that the authors of a data set released.

    Args:
        name: of the file.
        url: where it is. None: nowhere without an account.
        digest: "md5:…", "sha1:…" or "sha256:…". None: none is known, and only the checksums inside
            the archive are checked, which say nothing of who made it.
        page: where people get it.
    """

    name: str
    url: str | None = None
    digest: str | None = None
    page: str = ""


@dataclass(frozen=True)
class Source:
    """The places that archives come from, and that everything goes to.

    Args:
        root: folder of the data set. An archive that lies there is used, any other is downloaded
            into it.
        mirror: address of a folder on another server that has the archives, under their own names.
        unofficial: accept archives whose checksum or number of images is not the official one: a
            part of the data set, or a copy that somebody packed again.
    """

    root: Path
    mirror: str | None = None
    unofficial: bool = False

    def fetch(self, archive: Archive) -> Path:
        """Return the path of an archive in the root, downloaded if need be, and checked.

        Where there is nothing to check it by, say so.

        Raises:
            DataError: it is missing and cannot be downloaded, or its checksum is wrong.
        """
        path = self.root / archive.name
        if path.is_file():
            problem = self._problem(path, archive)
            if problem:
                raise DataError(f"{problem} Delete the file to download it again")
            self._say_unchecked(path, archive, "")
            return path
        url = f"{self.mirror.rstrip('/')}/{archive.name}" if self.mirror else archive.url
        if url is None:
            raise DataError(f"{path} is missing: get it from {archive.page} and put it there")
        try:
            part, whole = download(url, path, mirror="--mirror", folder="--root")
        except DownloadError as error:
            raise DataError(str(error)) from error
        problem = self._problem(part, archive)
        if problem and not whole:
            raise DataError(
                f"{url}: {problem} The server did not say how long it is, so it may have ended "
                f"early: run the command again, and it goes on; or delete {part}"
            )
        if problem:
            part.unlink()
            raise DataError(
                f"{url}: {problem} The file was deleted: run the command again, or choose another "
                "--mirror"
            )
        self._say_unchecked(part, archive, url)
        return part.replace(path)

    def expect(self, name: str, counts: dict[str, int], official: dict[str, int]) -> None:
        """Compare the number of files of each part of a data set with what was published.

        Raises:
            DataError: they differ. Where unofficial data is accepted, a line on the screen says so.
        """
        wrong = [
            f"{part}: {counts[part]:,}, officially {number:,}"
            for part, number in official.items()
            if counts[part] != number
        ]
        if not wrong:
            return
        sentence = (
            f"{name} in {self.root} is not complete, or not the official one. {'; '.join(wrong)}."
        )
        if not self.unofficial:
            raise DataError(
                f"{sentence} Delete the archive to download it again, or accept this with "
                "--unofficial true"
            )
        print(sentence)

    def _say_unchecked(self, path: Path, archive: Archive, url: str) -> None:
        """Print the SHA-256 of a file whose checksum was not compared, for people to compare.

        Args:
            path: of the file.
            archive: that it should be.
            url: where it was downloaded from; empty if it was in the root.
        """
        if archive.digest is not None and not self.unofficial:
            return
        print(f"checking {path.name}", flush=True)
        digest = digest_of(path)
        why = "is not checked (--unofficial)" if archive.digest else "has no published checksum"
        way = " and came over http, where anybody on the way can exchange it" if _plain(url) else ""
        print(
            f"NOTE: {archive.name} {why}{way}. Compare its sha256 with that of somebody who has it "
            f"too:\n  {digest}",
            flush=True,
        )

    def _problem(self, path: Path, archive: Archive) -> str | None:
        """Return what is wrong with the checksum of a file, or None."""
        if archive.digest is None or self.unofficial:
            return None
        algorithm, _, expected = archive.digest.partition(":")
        print(f"checking {path.name}", flush=True)
        digest = digest_of(path, algorithm)
        if digest == expected:
            return None
        with path.open("rb") as file:
            page = file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html"))
        what = "it is a web page" if page else f"its {algorithm} is {digest}, expected {expected}"
        return f"{path} is not the official {archive.name}: {what}."


def _plain(url: str) -> bool:
    """Tell whether an address is unencrypted; no redirect leads from another to such a one."""
    return urlsplit(url).scheme.lower() in ("http", "ftp")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from preparing a data set in a folder meanwhile.

    The lock is one of this process alone, which its workers do not inherit. Where there are no
    locks (Windows, some network disks) nobody is kept out, nor in a folder that is read-only.

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
        try:
            with suppress(NoLocksError):
                lock(file, inherited=False)
        except BlockingIOError:
            is_locked = False
        else:
            is_locked = _is_at(file, path)
        if not is_locked:
            raise DataError(
                f"{folder}: another process prepares a data set there just now. Wait for it, or "
                "choose another --root"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # still locked: who has opened it sees that it is gone


def _is_at(file: IO, path: Path) -> bool:
    """Tell whether an open file has not been removed or replaced."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
