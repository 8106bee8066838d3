"""The files of a data set that lies on disk: given, and all there."""

import re
from collections.abc import Sequence
from pathlib import Path

from deeplab_lit.data.dataset import Pair
from deeplab_lit.data.find import files_below, is_hidden
from deeplab_lit.data.image import LOSSLESS, DataError, MissingFiles
from deeplab_lit.text import first_few


def given(root: str | None) -> Path:
    """The folder of a data set that lies on disk.

    Raises:
        DataError: it was not given.
    """
    if not root:
        raise DataError("--data.root is missing: give the folder of the data set")
    return Path(root).expanduser()


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match a pattern, sorted, without hidden ones."""
    return sorted(p for p in folder.glob(pattern) if not any(map(is_hidden, p.parts[-2:])))


def masks_of(ids: Sequence[str], folder: Path) -> list[Path]:
    """The mask of each image: the file of its name in `folder`, in any lossless format.

    Raises:
        DataError: an image has two.
        MissingFiles: an image has none; names what is there instead.
    """
    found: dict[str, list[Path]] = {}
    for file in files_below(folder):
        found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
    masks, missing = [], []
    for id in ids:
        there = [file for file in found.get(id, []) if file.suffix.lower() in LOSSLESS]
        if len(there) > 1:
            raise DataError(f"{there[0]} and {there[1].name} are masks of one image: remove one")
        masks += there or [folder / f"{id}.png"]
        missing += [] if there else [masks[-1]]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        hint = _instead(ids, {id for id in ids if folder / f"{id}.png" in missing}, found)
        raise MissingFiles(
            f"{len(missing)} of {2 * len(ids)} files are missing: "
            f"{', '.join(map(str, missing[:3]))}{more}",
            missing,
            hint,
        )
    return masks


def _instead(ids: Sequence[str], missing: set[str], found: dict[str, list[Path]]) -> str:
    """What lies there that may be the masks that are missing."""
    lossy = [file for id in ids if id in missing for file in found.get(id, [])]
    if lossy:
        return (
            f"There is {first_few([file.name for file in lossy])}, but a lossy format changes "
            "values, and with them classes: save masks as PNG from the original annotations"
        )
    taken = set(ids)
    for id in (id for id in ids if id in missing):
        stem = re.escape(id.rpartition("/")[2])
        other = re.compile(rf"([^\d]*[_\-. ])?{stem}([_\-. ][^\d]*)?")
        for name, files in found.items():
            if name not in taken and other.fullmatch(name.rpartition("/")[2]):
                return (
                    f"There is {files[0]}: if that is the mask of {id}, rename it to {id}"
                    f"{files[0].suffix}, and the others alike"
                )
    return ""


def existing(pairs: list[Pair]) -> list[Pair]:
    """The pairs, once every file of theirs is there.

    Raises:
        DataError: two images have the same name.
        MissingFiles: the files that are missing.
    """
    ids = {pair.id: pair for pair in pairs}
    twice = next((pair for pair in pairs if ids[pair.id] is not pair), None)
    if twice is not None:
        raise DataError(f"{twice.image} and {ids[twice.id].image} have one name, {twice.id}")
    missing = [path for pair in pairs for path in (pair.image, pair.mask) if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise MissingFiles(
            f"{len(missing)} of {2 * len(pairs)} files are missing: "
            f"{', '.join(map(str, missing[:3]))}{more}",
            missing,
        )
    return pairs
