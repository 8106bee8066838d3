"""The images that a command line names: files, folders and patterns."""

import glob
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from deeplab_lit.data.image import SUFFIXES, DataError, DataWarning
from deeplab_lit.data.paths import NO_IMAGE, files_below, passed_over

MAGIC = frozenset("*?[")


def find_images(inputs: Sequence[str], leave_out: Path) -> dict[Path, Path]:
    """The images, each under a name of its own.

    Files in a folder that are no images are counted in a DataWarning.

    Args:
        inputs: paths and patterns.
        leave_out: a folder whose content is not meant: the one that results go to.

    Returns:
        Name → file. The name is relative to the folder, or to the fixed part of the pattern, in
        which the image was found; `**` in a pattern stands for any folders. It has the image's
        suffix only where another image differs in nothing else.

    Raises:
        DataError: nothing found; or two images have the same name.
    """
    found: dict[Path, Path] = {}  # image → its name with the suffix
    for given in inputs:
        below = list(_find(given, leave_out.absolute()))
        if not below:
            kinds = " ".join(SUFFIXES)
            raise DataError(f"--images {given}: no image there (looked for {kinds})")
        for image, base in below:
            found.setdefault(image, image.relative_to(base))
    alike = Counter(name.with_suffix("") for name in found.values())
    images: dict[Path, Path] = {}
    for image, full in found.items():
        name = full if alike[full.with_suffix("")] > 1 else full.with_suffix("")
        other = images.setdefault(name, image)
        if other != image:
            raise DataError(
                f"{other} and {image} would both be called {name} in the results: rename one, "
                "or treat them one after the other with different --out folders"
            )
    return images


def _find(given: str, leave_out: Path) -> Iterator[tuple[Path, Path]]:
    """(image, folder it was looked for in), absolute, in the order of the names."""
    if not given.strip():
        raise DataError("--images got an empty name: give files, folders or patterns")
    given = os.path.expanduser(given)  # noqa: PTH111 (a pattern)
    path = _absolute(given)
    if path.is_file():
        yield path, path.parent
        return
    if path.is_dir():
        base, candidates = path, files_below(path)
    else:
        parts = Path(given).parts
        fixed = next((i for i, part in enumerate(parts) if MAGIC & set(part)), len(parts))
        base = _absolute(Path(*parts[:fixed]))
        # not Path.glob, which takes no absolute pattern
        matches = map(_absolute, glob.glob(given, recursive=True))  # noqa: PTH207
        candidates = (file for file in matches if "__MACOSX" not in file.parts)
    others = []
    for file in sorted(file for file in candidates if leave_out not in file.parents):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            yield file, base
        elif file.is_file():
            others.append(file)
    if others:
        warnings.warn(passed_over(base, others, NO_IMAGE), DataWarning, stacklevel=2)


def _absolute(path: str | Path) -> Path:
    """Absolute and without "..", but links keep their names: results are called after them."""
    return Path(os.path.abspath(path))  # noqa: PTH100
