"""Downloads that go on where they were stopped. Every part of the package may import this."""

import re
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from deeplab_lit.atomic import check_room
from deeplab_lit.errors import UserError
from deeplab_lit.progress_bar import progress_bar

CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte
LARGEST = 40e9  # bytes; the largest file that is fetched here, COCO's train2017, has 19.3e9
MOST_REDIRECTS = 5


class DownloadError(UserError):
    """A file cannot be downloaded; says from where, why and what to do."""


class Download(NamedTuple):
    """A downloaded file.

    Attributes:
        part: where it is, a .part file; its content is not checked.
        whole: whether it is known to be complete; False where the server did not say how long it
            is.
    """

    part: Path
    whole: bool


def download(url: str, path: Path, *, mirror: str, folder: str) -> Download:
    """Fetch a file as `path`.part, going on with what is there of it.

    Where the server says which version of the file it sends, that is kept as `path`.part.version
    until all has come: halves of two versions are not put together.

    Args:
        url: where it is.
        path: what it will be called when somebody has checked it.
        mirror: the option that names another server, for what errors advise.
        folder: the option that names another place, likewise.

    Raises:
        DownloadError: the server cannot be reached, does not have the file, sends it elsewhere by
            a way that is less safe, says nonsense about its length, sends more than any file that
            is fetched here has, or hung up before the end. What has come is kept.
        NoRoomError: the disk is too full.
    """
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.is_file() else 0
    try:
        response = _open(url, have)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError) and error.code == 416 and have:  # there is no more of it
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return Download(part, whole=True)
            part.unlink()
            return download(url, path, mirror=mirror, folder=folder)
        raise DownloadError(_stopped(url, path, str(error), mirror)) from error
    with response:
        if response.status != 206:
            have = 0  # the server sends the file from its beginning
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if have and _has_changed(part, version):
            print(f"{url} has changed since its first bytes came: fetched from its beginning")
            part.unlink()
            return download(url, path, mirror=mirror, folder=folder)
        try:
            total = _total(response.headers, have)
        except ValueError as error:
            raise DownloadError(_stopped(url, path, str(error), mirror)) from error
        if total is not None and total > LARGEST:
            raise DownloadError(_too_large(url, path, total, mirror))
        check_room(path, (total or 0) - have, folder)
        if not have and version:
            _version_file(part).write_text(version, "utf-8")
        elif not have:
            _version_file(part).unlink(missing_ok=True)
        _receive(response, url, path, have, total, mirror)
        _version_file(part).unlink(missing_ok=True)
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"  # has an end
        return Download(part, whole=total is not None or chunked)


def _version_file(part: Path) -> Path:
    """Return where the version of the file lies, of which `part` is the beginning."""
    return part.with_name(f"{part.name}.version")


def _has_changed(part: Path, version: str) -> bool:
    """Return whether the server says another version now than when `part` came; False: unknown."""
    file = _version_file(part)
    before = file.read_text("utf-8") if file.is_file() else ""
    return bool(before and version) and before != version


class _NoRedirects(HTTPRedirectHandler):
    """Raise redirects as errors, with the new address in their headers, to be judged first."""

    def redirect_request(self, *args: object) -> None:
        """Follow none."""


def _open(url: str, have: int) -> HTTPResponse:
    """Ask for the bytes of a file behind the first `have`, following safe redirects."""
    headers = {"User-Agent": "deeplab_lit"}
    if have:
        headers["Range"] = f"bytes={have}-"
    opener = build_opener(_NoRedirects)
    for _ in range(1 + MOST_REDIRECTS):
        try:
            response = opener.open(Request(url, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            place = error.headers.get("Location")
            if error.code not in (301, 302, 303, 307, 308) or not place:
                raise
            error.close()
            url = _redirected(url, place)
            continue
        begins = (response.headers.get("Content-Range") or f"bytes {have}-").split("-")[0]
        if response.status == 206 and begins != f"bytes {have}":
            raise HTTPException(f"asked for bytes from {have}, got {begins}")
        return response
    raise HTTPException(f"more than {MOST_REDIRECTS} redirects, the last to {url}")


def _redirected(url: str, place: str) -> str:
    """Return the address that a server sends us to.

    Raises:
        HTTPException: it is not on the web, or plain http where ours was https.
    """
    target = urljoin(url, place.replace(" ", "%20"))
    before, after = (urlsplit(address).scheme for address in (url, target))
    if after not in ("http", "https") or (before, after) == ("https", "http"):
        raise HTTPException(f"the server sends us from {before} on to {target}: not followed")
    return target


def _total(headers: HTTPMessage, have: int) -> int | None:
    """Return the size of the whole file in bytes, from a response that begins behind `have`.

    Returns:
        None where the server does not say.

    Raises:
        ValueError: what the server says is no length.
    """
    length, content_range = headers.get("Content-Length"), headers.get("Content-Range", "")
    if length is not None and not re.fullmatch("[0-9]{1,15}", length.strip()):
        raise ValueError(f"the server says Content-Length: {length}, which is no number of bytes")
    whole = re.fullmatch(r"bytes [0-9]+-[0-9]+/([0-9]{1,15})", content_range)
    if have and whole:
        return int(whole[1])
    return None if length is None else have + int(length)


def _receive(
    response: HTTPResponse, url: str, path: Path, have: int, total: int | None, mirror: str
) -> None:
    """Append what the server sends to <path>.part."""
    part = path.with_name(f"{path.name}.part")
    size = have
    progress = progress_bar(desc=path.name, initial=have, total=total, unit="B", unit_scale=True)
    with part.open("ab" if have else "wb") as file, progress:
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, HTTPException) as error:
                raise DownloadError(_stopped(url, path, str(error), mirror)) from error
            if not chunk:
                break
            size += len(chunk)
            if size > LARGEST:
                raise DownloadError(_too_large(url, path, size, mirror))
            file.write(chunk)
            progress.update(len(chunk))
    if total is not None and size != total:
        raise DownloadError(_stopped(url, path, f"{size:,} of {total:,} bytes came", mirror))


def _too_large(url: str, path: Path, size: int, mirror: str) -> str:
    return (
        f"{url} has {size / 1e9:,.0f} GB or more, which no file that is fetched here has: delete "
        f"{path.name}.part if it is there, and get the file in another way or from another {mirror}"
    )


def _stopped(url: str, path: Path, reason: str, mirror: str) -> str:
    return (
        f"{url}: the download did not finish ({reason}). Run the same command again, and it goes "
        f"on; or fetch the file in another way and put it at {path}; or name another server that "
        f"has it with {mirror}."
    )
