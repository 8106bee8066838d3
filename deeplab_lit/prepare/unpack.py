"""Unpack archives that nobody has to trust; ADE20K and Cityscapes need no more than that."""

import gzip
import shlex
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from deeplab_lit.atomic import atomic_folder, atomic_write, check_room
from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import is_hidden
from deeplab_lit.download import CHUNK
from deeplab_lit.prepare.archives import Archive, Source
from deeplab_lit.progress_bar import progress_bar

Rename = Callable[[str], str | None]
DAMAGED = (EOFError, KeyError, OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
UNSUPPORTED = (NotImplementedError, RuntimeError)  # what zipfile raises for them
# SHA-1 as in GluonCV's scripts/datasets/ade20k.py
ADE20K = Archive(
    "ADEChallengeData2016.zip",
    "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    "sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
)
ADE20K_IMAGES = {"training": 20_210, "validation": 2000}
CITYSCAPES_PAGE = "https://www.cityscapes-dataset.com/downloads (free account)"
CITYSCAPES_PARTS = {  # archive and folder → the files that count, and how many there are
    "leftImg8bit": ("*/*_leftImg8bit.png", {"train": 2975, "val": 500, "test": 1525}),
    "gtFine": ("*/*_gtFine_labelIds.png", {"train": 2975, "val": 500}),
}


class _Member(NamedTuple):
    name: str  # relative, without ".."
    size: int  # bytes when unpacked
    open: Callable[[], IO[bytes]]
    position: int  # in the archive, bytes


def under(folder: str, to: str = "") -> Rename:
    """Choose the members below a folder, wherever it is in the archive, named from there.

    Args:
        folder: name, or several parts of a path.
        to: put in front of their names.

    Returns:
        A function: name of a member → new name, or None for one that is not wanted.
    """

    def rename(name: str) -> str | None:
        before, separator, inside = f"/{name}".partition(f"/{folder}/")
        hidden = "__MACOSX" in before.split("/") or any(map(is_hidden, inside.split("/")))
        return str(PurePosixPath(to, inside)) if separator and not hidden else None

    return rename


def points_outside(name: str) -> bool:
    """Tell whether the name of a member is absolute, has a drive, or leads up."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0]


def unpack(archive: Path, folder: Path, rename: Rename) -> None:
    """Unpack a .tar, .tar.gz, .tgz or .zip; skip files that exist with the right size.

    Each file is written atomically.

    Args:
        archive: to read.
        folder: to write into.
        rename: name of a member → name in `folder`; None for one that is not wanted.

    Raises:
        DataError: the archive is damaged, encrypted or of an unknown kind, holds nothing that is
            wanted, needs more room than there is, or has a member that points outside or a link.
            Such a member is not written.
    """
    unpacked = False
    read = _zip_members if archive.suffix == ".zip" else _tar_members
    progress = progress_bar(
        desc=f"unpacking {archive.name}", total=archive.stat().st_size, unit="B", unit_scale=True
    )
    try:
        with closing(read(archive, folder, rename)) as members, progress:
            for member in members:
                name = rename(member.name)
                if name:
                    unpacked = True
                    _write(member, folder / name)
                progress.update(member.position - progress.n)
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise DataError(
            f"{archive} is damaged or not an archive ({str(error) or type(error).__name__}): "
            "delete it and get it again"
        ) from error
    except UNSUPPORTED as error:
        raise DataError(
            f"{archive} is encrypted, or packed in a way that Python cannot read ({error}): get "
            "the official file, or pack it again as an ordinary zip"
        ) from error
    if not unpacked:
        raise DataError(f"{archive} does not hold what {archive.name} should: is it another file?")


def _write(member: _Member, path: Path) -> None:
    if path.is_file() and path.stat().st_size == member.size:
        return
    with atomic_write(path) as temporary, member.open() as source, temporary.open("wb") as target:
        shutil.copyfileobj(source, target)
    if path.stat().st_size != member.size:
        path.unlink()
        raise EOFError(f"{member.name} ends early")


def _zip_members(archive: Path, folder: Path, rename: Rename) -> Generator[_Member, None, None]:
    with zipfile.ZipFile(archive) as file:
        sizes = {rename(info.filename): info.file_size for info in file.infolist()}
        missing = (n for name, n in sizes.items() if name and not (folder / name).is_file())
        check_room(folder, sum(missing), "--root")
        for info in file.infolist():
            if points_outside(info.filename) or "\\" in info.filename:
                raise DataError(f"{archive}: {info.filename} points outside; it is refused")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise DataError(f"{archive}: {info.filename} is a link; it is refused")
            if not info.is_dir():
                end = info.header_offset + info.compress_size
                yield _Member(
                    str(PurePosixPath(info.filename)), info.file_size, partial(file.open, info), end
                )


def _tar_members(archive: Path, folder: Path, rename: Rename) -> Generator[_Member, None, None]:
    with archive.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            check_room(folder, archive.stat().st_size - _size_of(folder), "--root")
        with (
            gzip.open(raw) if packed else nullcontext(raw) as content,
            tarfile.open(fileobj=content, mode="r:") as file,
        ):
            for member in file:
                try:
                    safe = tarfile.data_filter(member, str(folder))
                except tarfile.FilterError as error:
                    raise DataError(f"{archive}: {error}; it is refused") from error
                if ".." in PurePosixPath(safe.name).parts:  # inside here, but not once renamed
                    raise DataError(f"{archive}: {safe.name} points outside; it is refused")
                if safe.issym() or safe.islnk():
                    raise DataError(f"{archive}: {safe.name} is a link; it is refused")
                if safe.isfile():
                    name = str(PurePosixPath(safe.name))
                    opened = partial(_content, file, member)
                    yield _Member(name, safe.size, opened, raw.tell())
            while content.read(CHUNK):  # gzip's checksum stands behind everything
                pass


def _content(file: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = file.extractfile(member)
    assert content is not None  # a file
    return content


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def prepare_ade20k(source: Source) -> str:
    """Put ADE20K as released for the scene parsing challenge of 2016 in place; return its options.

    Raises:
        DataError: the archive cannot be had, or is not the official one.
    """
    folder = source.root / "ADEChallengeData2016"
    if not folder.is_dir():
        archive = source.fetch(ADE20K)
        with atomic_folder(folder) as part:
            unpack(archive, part, under("ADEChallengeData2016"))
            for kind in ("images", "annotations"):
                counts = {s: sum(1 for _ in (part / kind / s).glob("*.*")) for s in ADE20K_IMAGES}
                source.expect(f"ADE20K ({kind})", counts, ADE20K_IMAGES)
    return f"--data ADE20K --data.root {shlex.quote(str(folder))}"


def prepare_cityscapes(source: Source) -> str:
    """Put Cityscapes in place, from two archives that lie in the root; return its options.

    Raises:
        DataError: an archive is missing, or not the official one.
    """
    for name, (files, official) in CITYSCAPES_PARTS.items():
        folder = source.root / name
        if folder.is_dir():
            continue
        archive = source.fetch(Archive(f"{name}_trainvaltest.zip", page=CITYSCAPES_PAGE))
        with atomic_folder(folder) as part:
            unpack(archive, part, under(name))
            counts = {split: sum(1 for _ in (part / split).glob(files)) for split in official}
            source.expect(f"Cityscapes ({name})", counts, official)
    return f"--data Cityscapes --data.root {shlex.quote(str(source.root))}"
