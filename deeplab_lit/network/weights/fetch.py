"""Fetch published weights by their names, once, into torch's folder for downloads.

There torchvision's weights lie too, and what torch.hub has fetched is found again; TORCH_HOME moves
it. What lies there under its name is complete, and was readable when it came (from a .zip: had the
checksum that stands there); a .part is what has come so far, and the next run goes on with it. The
variable DEEPLAB_LIT_MIRROR names another server, or a folder as file:///mnt/weights, that has the
files under the same names, a .zip as deeplab_aspp_resnet101/prototxt_and_model.zip.
"""

import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch

from deeplab_lit.atomic import NoLocksError, atomic_write, check_room, lock
from deeplab_lit.download import DownloadError, download
from deeplab_lit.network.weights.published import NAMED, PUBLISHED, Published, meant
from deeplab_lit.network.weights.read import (
    AGAIN,
    HASH_IN_NAME,
    MissingWeights,
    WeightsError,
    read_weight_file,
    sha256_of,
)
from deeplab_lit.text import first_few

MIRROR = "DEEPLAB_LIT_MIRROR"
# what a damaged .zip makes zipfile raise; bzip2's is an OSError without a number
DAMAGES = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError, RuntimeError)
SECONDS = 0.2  # between two looks at whether another process has done


def weight_file(path: str | Path) -> str:
    """Return the file that a name of published weights stands for; any other path as it is.

    Args:
        path: a file, or a name of NAMED, which is fetched unless it has been. A file or folder
            that is called like a name comes first, and that is said.

    Raises:
        WeightsError: the published file cannot be had, or is not what it should be.
        MissingWeights: it is neither a file nor such a name, but looks like one.
    """
    name = str(path)
    if Path(name).expanduser().exists():
        if name not in NAMED:
            return name
        print(f"Note: {name} is here, and is taken; published weights have that name too")
        return f"./{name}"
    if name in NAMED:
        return str(fetch(NAMED[name]))
    if sentence := meant(name):
        raise MissingWeights(sentence)
    return name


def folder() -> Path:
    """Return torch's folder for downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def place_of(entry: Published) -> Path:
    """Return where a published file lies once it is fetched."""
    return (folder() / _archive(entry)).with_name(entry.file)


def fetch(entry: Published) -> Path:
    """Return a published file, downloaded if need be; of several processes, one downloads.

    Raises:
        WeightsError: it cannot be had, or is not what it should be.
    """
    file = place_of(entry)
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    target = file.with_name(PurePosixPath(_archive(entry)).name)
    with _alone(target):
        if not file.is_file():
            _download(entry, file, target)
    return file


def _archive(entry: Published) -> str:
    """Return the end of an address that tells a file from others; a folder too, of a .zip."""
    parts = PurePosixPath(urlsplit(entry.url).path).parts
    return "/".join(parts[-2:] if entry.is_zipped else parts[-1:])


def _download(entry: Published, file: Path, target: Path) -> None:
    """Fetch a file and look at what has come.

    Args:
        entry: to fetch.
        file: where it goes.
        target: the same, or the .zip in which it lies.

    Raises:
        WeightsError: it cannot be had, or is not what it should be.
    """
    url, mirror = entry.url, os.environ.get(MIRROR)
    if mirror:
        if "://" not in mirror:
            raise WeightsError(
                f"the variable {MIRROR} is {mirror}: expected an address, like "
                "https://server/weights or file:///mnt/weights"
            )
        url = f"{mirror.rstrip('/')}/{_archive(entry)}"
    if entry.is_zipped and target.is_file():  # put there by hand
        _unpack(target, entry, file)
        return
    print(f"Downloading {entry.name}, license: {entry.license}", flush=True)
    print(f"  from {url}\n  to {target}", flush=True)
    try:
        part, whole = download(
            url, target, mirror=f"the variable {MIRROR}", folder="folder with TORCH_HOME"
        )
    except DownloadError as error:
        raise WeightsError(str(error)) from error
    try:
        if entry.is_zipped:
            _unpack(part, entry, file)
        else:
            _check(part, entry)
    except WeightsError as error:
        if whole:
            part.unlink()
        reason = str(error).removeprefix(str(part)).lstrip(": ").partition(f". {AGAIN}")[0]
        again = "the file was deleted" if whole else f"it goes on, unless {part} is deleted"
        raise WeightsError(
            f"{url} is not what it should be ({reason.rstrip('.')}). Run the command again "
            f"({again}), or name another server that has it with the variable {MIRROR}"
        ) from error
    if url.startswith("http:") and not HASH_IN_NAME.search(entry.file):
        print(
            f"NOTE: {entry.file} has no published hash and came over http, where anybody on the "
            "way can exchange it. Compare its SHA-256 with that of somebody who has it too:\n  "
            f"{sha256_of(file if entry.is_zipped else part)}",
            flush=True,
        )
    if entry.is_zipped:
        part.unlink()
    else:
        part.replace(file)


def _check(part: Path, entry: Published) -> None:
    """Refuse a file whose hash is not that in its name, or that holds no weights.

    Raises:
        WeightsError: it is such a file.
    """
    read_weight_file(part)  # says more of web pages and truncated files than a hash
    in_name = HASH_IN_NAME.search(entry.file)
    if in_name and not (sha256 := sha256_of(part)).startswith(in_name[1]):
        raise WeightsError(
            f"its SHA-256 begins with {sha256[: len(in_name[1])]}, its name says {in_name[1]}"
        )


def _unpack(archive: Path, entry: Published, file: Path) -> None:
    """Take all files of the table out of the .zip in which they lie.

    Args:
        archive: to read.
        entry: that is asked for.
        file: where it goes; the others beside it.

    Raises:
        WeightsError: it is no .zip, a damaged one, or does not hold the file that is asked for.
    """
    files = {other.file for other in PUBLISHED if other.url == entry.url}
    wanted = {name for name in files if not file.with_name(name).is_file()}
    try:
        with zipfile.ZipFile(archive) as content:
            infos = [info for info in content.infolist() if not info.is_dir()]
            held = {PurePosixPath(info.filename).name: info for info in infos}
            todo = sorted(wanted & held.keys())
            check_room(file, sum(held[name].file_size for name in todo), "folder with TORCH_HOME")
            for name in todo:
                with (
                    atomic_write(file.with_name(name)) as place,
                    content.open(held[name]) as source,
                    place.open("wb") as target,
                ):
                    shutil.copyfileobj(source, target)
    except (*DAMAGES, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        raise WeightsError(f"{archive}: no .zip, or a damaged one ({error}). {AGAIN}") from error
    if entry.file not in held:
        names = first_few(sorted(held)) if len(held) > 20 else ", ".join(sorted(held))
        raise WeightsError(f"{archive} holds no {entry.file}, but {names or 'nothing'}")


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Wait until no other process fetches a file, and keep others waiting meanwhile.

    Where there are no locks (Windows, some network disks) nobody waits.
    """
    path = file.with_name(f".{file.name}.lock")
    with path.open("a") as held:
        waits = False
        while True:
            try:
                lock(held)
                break
            except NoLocksError:
                break
            except BlockingIOError:
                if not waits:
                    print(f"Another process downloads {file}: waiting for it", flush=True)
                waits = True
                time.sleep(SECONDS)
        yield
        path.unlink(missing_ok=True)  # who waits for it sees that the file is there
