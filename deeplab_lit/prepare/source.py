"""Official archives, and where they are taken from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deeplab_lit.data.image import DataError
from deeplab_lit.prepare.download import download


@dataclass(frozen=True)
class Archive:
    """A file that the authors of a data set released.

    Args:
        name: of the file.
        url: where it is. None: nowhere without an account.
        digest: "md5:…" or "sha1:…". None: none is known, and only the checksums inside the archive
            are checked, which say nothing of who made it.
        page: where people get it.
    """

    name: str
    url: str | None = None
    digest: str | None = None
    page: str = ""


@dataclass(frozen=True)
class Source:
    """Where archives come from, and where everything goes.

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
        """The archive, checked, in the root; says so where there is nothing to check it by.

        Raises:
            DataError: it is not there and cannot be downloaded, or its checksum is wrong.
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
        part, whole = download(url, path)
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

    def expect(self, name: str, found: dict[str, int], official: dict[str, int]) -> None:
        """Compare how much there is of each part of the data set with what was published.

        Raises:
            DataError: they differ, unless unofficial data is accepted, of which it is only said.
        """
        wrong = [
            f"{part}: {found[part]:,}, officially {number:,}"
            for part, number in official.items()
            if found[part] != number
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
        """Where no checksum was compared: say so, and the one that people can compare.

        Args:
            path: of the file.
            archive: that it should be.
            url: where it came from just now; empty: it was there.
        """
        if archive.digest is not None and not self.unofficial:
            return
        print(f"checking {path.name}", flush=True)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        why = "is not checked (--unofficial)" if archive.digest else "has no published checksum"
        way = " and came over http, where anybody on the way can exchange it" if _plain(url) else ""
        print(
            f"NOTE: {archive.name} {why}{way}. Compare its sha256 with that of somebody who has it "
            f"too:\n  {found}",
            flush=True,
        )

    def _problem(self, path: Path, archive: Archive) -> str | None:
        if archive.digest is None or self.unofficial:
            return None
        algorithm, _, expected = archive.digest.partition(":")
        print(f"checking {path.name}", flush=True)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found == expected:
            return None
        with path.open("rb") as file:
            page = file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html"))
        what = "it is a web page" if page else f"its {algorithm} is {found}, expected {expected}"
        return f"{path} is not the official {archive.name}: {what}."


def _plain(url: str) -> bool:
    """Whether it is unencrypted; where it is not, no redirect leads to what is (download.py)."""
    return urlsplit(url).scheme.lower() in ("http", "ftp")
