"""Downloads that go on where they were stopped."""

import shutil
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from deeplab_lit.bar import progress_bar
from deeplab_lit.data.image import DataError

CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte


def download(url: str, path: Path) -> Path:
    """Fetch a file as `path`.part, going on with what is there of it.

    Returns:
        The .part file, of the length that the server says; its content is not checked.

    Raises:
        DataError: the server cannot be reached, does not have the file, or hung up before its end.
            What has come is kept.
    """
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.is_file() else 0
    try:
        response = _open(url, have)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError) and error.code == 416 and have:  # there is no more of it
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return part
            part.unlink()
            return download(url, path)
        raise DataError(_stopped(url, path, str(error))) from error
    with response:
        if response.status != 206:
            have = 0  # the server sends the file from its beginning
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        check_room(path, (total or 0) - have)
        _receive(response, url, path, have, total)
    return part


def check_room(path: Path, needed: int) -> None:
    """Refuse what would fill the disk.

    Args:
        path: what is to be written; the folder above it exists.
        needed: bytes.

    Raises:
        DataError: there is less room.
    """
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise DataError(
            f"{path} needs {needed / 1e9:,.2f} GB, but {free / 1e9:,.2f} GB are free on that disk: "
            "make room, or choose another --root"
        )


def _open(url: str, have: int) -> HTTPResponse:
    headers = {"User-Agent": "deeplab_lit"}
    if have:
        headers["Range"] = f"bytes={have}-"
    response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    begins = (response.headers.get("Content-Range") or f"bytes {have}-").split("-")[0]
    if response.status == 206 and begins != f"bytes {have}":
        raise HTTPException(f"asked for bytes from {have}, got {begins}")
    return response


def _receive(response: HTTPResponse, url: str, path: Path, have: int, total: int | None) -> None:
    part = path.with_name(f"{path.name}.part")
    progress = progress_bar(desc=path.name, initial=have, total=total, unit="B", unit_scale=True)
    with part.open("ab" if have else "wb") as file, progress:
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, HTTPException) as error:
                raise DataError(_stopped(url, path, str(error))) from error
            if not chunk:
                break
            file.write(chunk)
            progress.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise DataError(_stopped(url, path, f"{size:,} of {total:,} bytes came"))


def _stopped(url: str, path: Path, reason: str) -> str:
    return (
        f"{url}: the download did not finish ({reason}). Run the same command again, and it goes "
        f"on; or fetch the file in another way and put it at {path}; or name another server that "
        "has it with --mirror."
    )
