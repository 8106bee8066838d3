"""Find the images that a command line names as files, folders and patterns."""

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
    """Find images, and give each a different name.

    Files in a folder that are no images are counted in a DataWarning.

    Args:
        inputs: paths and patterns.
        leave_out: a folder whose content is skipped: the one that results go to.

    Returns:
        Name → file. The name is relative to the folder, or to the fixed part of the pattern, in
        which the image was found; `**` in a pattern stands for any folders. It has the image's
        suffix only where another image differs in nothing else.

    Raises:
        DataError: nothing found; or two images have the same name.
    """
    full_names: dict[Path, Path] = {}  # image → its name with the suffix
    for pattern in inputs:
        matches = list(_find(pattern, leave_out.absolute()))
        if not matches:
            kinds = " ".join(SUFFIXES)
            raise DataError(f"--images {pattern}: no image there (looked for {kinds})")
        for image, base in matches:
            full_names.setdefault(image, image.relative_to(base))
    counts = Counter(name.with_suffix("") for name in full_names.values())
    images: dict[Path, Path] = {}
    for image, full_name in full_names.items():
        stem = full_name.with_suffix("")
        name = full_name if counts[stem] > 1 else stem
        other = images.setdefault(name, image)
        if other != image:
            raise DataError(
                f"{other} and {image} would both be called {name} in the results: rename one, "
                "or treat them one after the other with different --out folders"
            )
    return images


def _find(pattern: str, leave_out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield (image, folder in which it was searched), both absolute, sorted by name."""
    if not pattern.strip():
        raise DataError("--images got an empty name: give files, folders or patterns")
    pattern = os.path.expanduser(pattern)  # noqa: PTH111 (not a path)
    path = _absolute(pattern)
    if path.is_file():
        yield path, path.parent
        return
    if path.is_dir():
        base, candidates = path, files_below(path)
    else:
        parts = Path(pattern).parts
        fixed = next((i for i, part in enumerate(parts) if MAGIC & set(part)), len(parts))
        base = _absolute(Path(*parts[:fixed]))
        # not Path.glob, which takes no absolute pattern
        matches = map(_absolute, glob.glob(pattern, recursive=True))  # noqa: PTH207
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
    """Make a path absolute, without ".."; links keep their names: results are called after them."""
    return Path(os.path.abspath(path))  # noqa: PTH100
