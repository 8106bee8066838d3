"""Find images as a command line names them: as files, folders and patterns, less by lists."""

import glob
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deeplab_lit.data.id_lists import indices_of, read_ids
from deeplab_lit.data.image import SUFFIXES, DataError, DataWarning
from deeplab_lit.data.paths import NO_IMAGE, files_below, passed_over
from deeplab_lit.text import first_few, plural, say

MAGIC = frozenset("*?[")
CITYSCAPES_END = "_leftImg8bit"  # of the names of its images, behind their ids


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


def ids_of(images: Mapping[Path, Path]) -> list[str]:
    """Return the id of each image: its name, of Cityscapes' without the end that all images have.

    Args:
        images: name → file, as `find_images` gives them.
    """
    return [name.as_posix().removesuffix(CITYSCAPES_END) for name in images]


def listed(
    images: Mapping[Path, Path], ids: str | None = None, all_but: str | None = None
) -> dict[Path, Path]:
    """Return the images that lists leave, in their own order; say how many these are.

    Args:
        images: name → file, as `find_images` gives them.
        ids: a list, as `read_ids` takes it: other images are left out. None: all images.
        all_but: a list of images to leave out; it may name others. None: none.

    Raises:
        DataError: a list cannot be read; an image of `ids` is missing; `all_but` names none that is
            there; or nothing is left.
    """
    kept = dict(images)
    if ids is not None:
        there, missing = _indices("--ids", ids, kept)
        if missing:
            raise DataError(
                f"--ids {ids}: {plural(len(missing), 'name')} of {len(there) + len(missing):,} "
                f"{'has' if len(missing) == 1 else 'have'} no image ({first_few(missing)}); "
                f"--images gives {plural(len(images), 'image')} ({first_few(ids_of(images))})"
            )
        kept = {name: file for i, (name, file) in enumerate(kept.items()) if i in there}
    if all_but is not None:
        there, missing = _indices("--all_but", all_but, kept)
        if not there:
            raise DataError(
                f"--all_but {all_but} names none of {plural(len(kept), 'image')} "
                f"({first_few(ids_of(kept))}): give a list of some of them"
            )
        kept = {name: file for i, (name, file) in enumerate(kept.items()) if i not in there}
        if not kept:
            raise DataError(f"--all_but {all_but} names all images: nothing is left")
        if missing:
            say(
                f"--all_but {all_but}: {plural(len(missing), 'name')} there "
                f"{'is' if len(missing) == 1 else 'are'} of no image here ({first_few(missing)})"
            )
    if len(kept) < len(images):
        say(f"The lists leave {len(kept):,} of {plural(len(images), 'image')}")
    return kept


def _indices(option: str, path: str, images: Mapping[Path, Path]) -> tuple[set[int], list[str]]:
    try:
        found, missing = indices_of(read_ids(path), ids_of(images), list(images.values()))
    except DataError as error:
        raise DataError(f"{option}: {error}") from error
    return set(found), missing
