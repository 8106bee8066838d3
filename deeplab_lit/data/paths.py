"""The files of a data set that lies on disk: given, and all there."""

from pathlib import Path

from deeplab_lit.data.dataset import Pair
from deeplab_lit.data.image import DataError, MissingFiles


def given(root: str | None) -> Path:
    """The folder of a data set that lies on disk.

    Raises:
        DataError: it was not given.
    """
    if not root:
        raise DataError("--data.root is missing: give the folder of the data set")
    return Path(root)


def existing(pairs: list[Pair]) -> list[Pair]:
    """The pairs, once every file of theirs is there.

    Raises:
        MissingFiles: the files that are missing.
    """
    missing = [path for pair in pairs for path in (pair.image, pair.mask) if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise MissingFiles(
            f"{len(missing)} of {2 * len(pairs)} files are missing: "
            f"{', '.join(map(str, missing[:3]))}{more}",
            missing,
        )
    return pairs
