"""The files of a data set: which there are, what lists of them say, and whether all are there."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deeplab_lit.data.image import LOSSLESS, DataError, MissingFiles
from deeplab_lit.text import first_few, plural

TRIED = 20  # missing masks for which all files are looked through
NO_IMAGE = "not the suffix of an image"


class Pair(NamedTuple):
    """Files of one labeled image."""

    id: str
    image: Path
    mask: Path


def require_root(root: str | None) -> Path:
    """Return the folder of a data set that lies on disk.

    Raises:
        DataError: it was not given.
    """
    if not root:
        raise DataError("--data.root is missing: give the folder of the data set")
    return Path(root).expanduser()


def is_hidden(name: str) -> bool:
    """Return whether a name is that of a system's own file, as "._x" and "__MACOSX" are."""
    return name.startswith(".") or name == "__MACOSX"


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder that is not hidden; follow links, but not in circles."""
    # folder → the real folders that it lies in
    above: dict[str, frozenset[str]] = {os.fspath(folder): frozenset()}
    for place, folders, names in os.walk(folder, followlinks=True):
        real, around = os.path.realpath(place), above.pop(os.fspath(place))
        if real in around:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        above |= {os.path.join(place, name): around | {real} for name in folders}  # noqa: PTH118
        yield from (Path(place, name) for name in sorted(names) if not is_hidden(name))


def passed_over(folder: Path, files: Sequence[Path], why: str) -> str:
    """Return a sentence on files below a folder that are not read."""
    names = first_few([str(file.relative_to(folder)) for file in files])
    verb = "is" if len(files) == 1 else "are"
    return f"{folder}: {plural(len(files), 'file')} {verb} passed over ({why}): {names}"


def matching(folder: Path, pattern: str) -> list[Path]:
    """List the files of a folder that match a pattern, sorted, without hidden ones."""
    return sorted(p for p in folder.glob(pattern) if not any(map(is_hidden, p.parts[-2:])))


def masks_of(
    ids: Sequence[str],
    images: Sequence[Path],
    folder: Path,
    suffixes: Collection[str] = LOSSLESS,
    *,
    missing_ok: bool = False,
) -> list[Path]:
    """Find the mask of each image: the file of its name in `folder`.

    Args:
        ids: names of the images.
        images: their files. Where the last part of an id is not the name of its file, a mask may
            have either, as `predict` names masks after files: at the place that the id says, or, if
            no other image has that name, in any folder below.
        folder: of the masks.
        suffixes: of their files, in small letters; by default any lossless format.
        missing_ok: an image that has none gets a place where no file is.

    Raises:
        DataError: an image has two.
        MissingFiles: an image has none, which is not `missing_ok`; names what is there instead.
    """
    found: dict[str, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for file in files_below(folder):
        found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
        by_stem.setdefault(file.stem, []).append(file)
    stems = [image.stem for image in images]
    places = [
        id.removesuffix(image.suffix) if id.endswith(image.name) else id
        for id, image in zip(ids, images, strict=True)
    ]
    times = Counter(name for names in zip(places, stems, strict=True) for name in set(names))
    kinds = {file.suffix for files in found.values() for file in files}
    usual = kinds.pop() if len(kinds) == 1 and kinds <= set(suffixes) else ".png"
    masks, missing = [], []
    for id, place, stem in zip(ids, places, stems, strict=True):
        named = found.get(id, [])
        if place != id and times[place] == 1:
            named = named + found.get(place, [])
        if stem != id.rpartition("/")[2] and times[stem] == 1 and not (named and "/" in id):
            named = by_stem.get(id, []) + by_stem.get(stem, [])
        there = [file for file in named if file.suffix.lower() in suffixes]
        if len(there) > 1:
            other = there[1].relative_to(folder)
            raise DataError(f"{there[0]} and {other} are masks of one image: remove one")
        masks += there or [folder / f"{place}{usual}"]
        missing += [] if there else [masks[-1]]
    if missing and not missing_ok:
        gone = set(missing)
        hint = _instead(places, {p for p in places if folder / f"{p}{usual}" in gone}, found)
        raise MissingFiles(_missing(missing, 2 * len(ids)), missing, hint)
    return masks


def _instead(ids: Sequence[str], missing: set[str], found: dict[str, list[Path]]) -> str:
    """Return a hint at files that may be the missing masks."""
    lossy = [file for id in ids if id in missing for file in found.get(id, [])]
    if lossy:
        return (
            f"There is {first_few([file.name for file in lossy])}, but a lossy format changes "
            "values, and with them classes: save masks as PNG from the original annotations"
        )
    taken = set(ids)
    for id in islice((id for id in ids if id in missing), TRIED):
        stem = re.escape(id.rpartition("/")[2])
        other = re.compile(rf"([^\d]*[_\-. ])?{stem}([_\-. ][^\d]*)?")
        for name, files in found.items():
            if name not in taken and other.fullmatch(name.rpartition("/")[2]):
                return (
                    f"There is {files[0]}: if that is the mask of {id}, rename it to {id}"
                    f"{files[0].suffix}, and the others alike"
                )
    return ""


def check_files_exist(pairs: Sequence[Pair]) -> None:
    """Refuse a split of which files are missing.

    Raises:
        DataError: two images have the same name.
        MissingFiles: the files that are missing.
    """
    refuse_one_name(pairs)
    refuse_missing([path for pair in pairs for path in (pair.image, pair.mask)])


def refuse_one_name(pairs: Sequence[Pair]) -> None:
    """Refuse two images of one name.

    Raises:
        DataError: there are some.
    """
    by_id = {pair.id: pair for pair in pairs}
    for pair in pairs:
        if by_id[pair.id] is not pair:
            raise DataError(f"{pair.image} and {by_id[pair.id].image} have one name, {pair.id}")


def refuse_missing(files: Sequence[Path]) -> None:
    """Refuse files that are missing.

    Raises:
        MissingFiles: some are.
    """
    if missing := [path for path in files if not path.is_file()]:
        raise MissingFiles(_missing(missing, len(files)), missing)


def _missing(missing: Sequence[Path], number: int) -> str:
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    names = ", ".join(map(str, missing[:3]))
    return f"{len(missing)} of {number} files are missing: {names}{more}"


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file, stripped, with or without a byte order mark.

    Raises:
        DataError: it is a folder, or no such text.
        OSError: it cannot be opened.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a text file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} is not UTF-8 (line {line} holds the byte 0x{error.object[error.start]:02x}; "
            "is it Latin-1 or UTF-16?): save it as UTF-8"
        ) from error
    return [line.strip() for line in text.splitlines()]


def lines_of(path: Path) -> list[str]:
    """Read lines as `read_lines` does, without the empty lines."""
    return [line for line in read_lines(path) if line]


def listed_ids(path: Path) -> list[str]:
    """Read the image names of a list, one a line, in its order.

    Raises:
        DataError: no such list, or one that holds something else.
    """
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise DataError(f"{path} does not exist; splits there: {there}")
    ids = lines_of(path)
    odd = next((id for id in ids if len(id.split()) > 1 or "/" in id), None)
    if odd is not None:
        raise DataError(f"{path}: expected an image name a line, found {odd!r}")
    refuse_repetitions(path, ids)
    return ids


def listed_frames(path: Path) -> list[str]:
    """Read the names of the frames that a list names, one a line, in its order.

    Lists of published code have "00001.png", "images/00001.png", or the image and its label with a
    space between them: what counts is the first name, without folder and suffix.

    Raises:
        DataError: a frame is named twice; or it is no text.
        OSError: it cannot be opened.
    """
    ids = [PurePosixPath(line.split()[0]).stem for line in lines_of(path)]
    refuse_repetitions(path, ids)
    return ids


def refuse_repetitions(path: Path, ids: Sequence[str]) -> None:
    """Refuse a list that names an image more than once.

    Raises:
        DataError: it does; with the first few.
    """
    twice = [id for id, number in Counter(ids).items() if number > 1]
    if twice:
        raise DataError(
            f"{path}: expected an image name a line, each once; {plural(len(twice), 'name')} "
            f"{'is' if len(twice) == 1 else 'are'} there twice or more ({first_few(twice)}). "
            "Remove the repetitions"
        )
