"""Lists of images, one a line: as people write them, and as published splits have them."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deeplab_lit.data.image import SUFFIXES, DataError
from deeplab_lit.data.paths import read_lines, refuse_repetitions
from deeplab_lit.text import first_few

# how pickles begin: protocols 2 to 5, and a NumPy array in protocol 0 or 1
PICKLES = (*(b"\x80" + bytes([protocol]) for protocol in range(2, 6)), b"cnumpy", b"cnumpy.core")
ARRAY = b"\x93NUMPY"


class IdList(NamedTuple):
    """The content of a list of images.

    Attributes:
        path: of its file.
        names: of images, in their order; see `read_ids`.
        sha256: of the file, hexadecimal.
    """

    path: Path
    names: list[str]
    sha256: str

    @property
    def title(self) -> str:
        """The file with its folder, as 92/labeled.txt: published lists differ in that alone."""
        path = self.path.absolute()
        return f"{path.parent.name}/{path.name}"


def read_ids(path: str | Path) -> IdList:
    """Read a list of images, one a line.

    A line is an id, or the path of an image; behind a path a second one may follow, of the mask,
    as in the lists of ST++ and UniMatch, which is not looked at. Empty lines and those that begin
    with # are left out; the ends of lines may be those of Windows.

    Args:
        path: the file.

    Raises:
        DataError: it is not there, no such text or empty, or a name is there twice.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"{path} does not exist, expected a list of images, one a line")
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a list of images, one a line")
    content = path.read_bytes()
    if content.startswith((*PICKLES, ARRAY)) or path.suffix in (".pkl", ".pickle"):
        raise DataError(
            f"{path} is a pickle or an array of NumPy, expected text with an image a line. A "
            "permutation (as Mittal's split_0.pkl) becomes such a list by: python -m "
            f"deeplab_lit.prepare id_list --pickle {path} --of train_aug.txt --first 662 "
            "--out labeled.txt"
        )
    lines = [line for line in read_lines(path) if line and not line.startswith("#")]
    if not lines:
        raise DataError(f"{path} names no image, expected one a line")
    names = [_first_path(line) for line in lines]
    refuse_repetitions(path, names)
    return IdList(path, names, hashlib.sha256(content).hexdigest())


def indices_of(
    listed: IdList, ids: Sequence[str], files: Sequence[Path]
) -> tuple[list[int], list[str]]:
    """Find the images of a list among others.

    A name is an id, or names the same file: by its last part, with the suffix of an image or
    without; folders in a name must fit where ids have folders too.

    Args:
        listed: the list.
        ids: of the images to search, unique.
        files: theirs; none where images are drawn.

    Returns:
        The index of each that is there, in the order of the list; and the names that are not.

    Raises:
        DataError: a name may be one of several images, or two names are the same.
    """
    by_id = {id: index for index, id in enumerate(ids)}
    by_stem: defaultdict[str, set[int]] = defaultdict(set)
    for index, id in enumerate(ids):
        by_stem[_without_suffix(id).name].add(index)
    for index, file in enumerate(files):
        by_stem[file.stem].add(index)
    found: dict[int, str] = {}
    missing: list[str] = []
    for name in listed.names:
        path = _without_suffix(name)
        fitting = [i for i in by_stem.get(path.name, ()) if _folders_fit(path, ids[i])]
        if name in by_id:
            fitting = [by_id[name]]
        if len(fitting) > 1:
            raise DataError(
                f"{listed.path}: {name} may be any of {first_few([ids[i] for i in fitting])}: "
                "write their folders too"
            )
        if not fitting:
            missing.append(name)
        elif fitting[0] in found:
            index = fitting[0]
            raise DataError(
                f"{listed.path}: {found[index]} and {name} are one image, {ids[index]}: remove one"
            )
        else:
            found[fitting[0]] = name
    return list(found), missing


def _first_path(line: str) -> str:
    """Return the first of several paths in a line; else the line, since an id may have spaces."""
    first = line.split()[0]
    return first if first.lower().endswith(SUFFIXES) else line


def _without_suffix(name: str) -> PurePosixPath:
    """Return a name as a path, without the suffix of an image; an id may have dots in it."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def _folders_fit(path: PurePosixPath, id: str) -> bool:
    """Return whether the folders of a path and of an id end alike, as far as both have some."""
    folders, others = path.parts[:-1], PurePosixPath(id).parts[:-1]
    shared = min(len(folders), len(others))
    return shared == 0 or folders[-shared:] == others[-shared:]
