"""Which images a command line means: files, folders with all below them, and globs."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from deeplab_lit.data.image import SUFFIXES, DataError

MAGIC = frozenset("*?[")


def find_images(inputs: Sequence[str], leave_out: Path) -> dict[Path, Path]:
    """The images, each under a name of its own.

    Args:
        inputs: paths and patterns.
        leave_out: a folder whose content is not meant: the one that results go to.

    Returns:
        Name → file. The name has no suffix and is relative to the folder, or to the fixed part of
        the pattern, in which the image was found; `**` in a pattern stands for any folders.

    Raises:
        DataError: nothing found; or two images have the same name.
    """
    images: dict[Path, Path] = {}
    for given in inputs:
        found = [(i, base) for i, base in _find(given) if leave_out.absolute() not in i.parents]
        if not found:
            kinds = " ".join(SUFFIXES)
            raise DataError(f"--images {given}: no image there (looked for {kinds})")
        for image, base in found:
            name = image.relative_to(base).with_suffix("")
            other = images.setdefault(name, image)
            if other != image:
                raise DataError(
                    f"{other} and {image} would both be called {name} in the results: rename one, "
                    "or treat them one after the other with different --out folders"
                )
    return images


def _find(given: str) -> Iterator[tuple[Path, Path]]:
    """(image, folder it was looked for in), absolute, in the order of the names."""
    path = _absolute(given)
    if path.is_file():
        yield path, path.parent
        return
    if path.is_dir():
        base, candidates = path, path.rglob("*")
    else:
        parts = Path(given).parts
        fixed = next((i for i, part in enumerate(parts) if MAGIC & set(part)), len(parts))
        base = _absolute(Path(*parts[:fixed]))
        # not Path.glob, which takes no absolute pattern
        candidates = map(_absolute, glob.glob(given, recursive=True))  # noqa: PTH207
    for image in sorted(candidates):
        if image.suffix.lower() in SUFFIXES and image.is_file():
            yield image, base


def _absolute(path: str | Path) -> Path:
    """Absolute and without "..", but links keep their names: results are called after them."""
    return Path(os.path.abspath(path))  # noqa: PTH100
