"""Segment image files into masks and overlays, going on where it was stopped.

They are found as a command line names them: as files, folders and patterns.
"""

import glob
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.image import SUFFIXES, DataError, DataWarning, read_image
from deeplab_lit.data.paths import NO_IMAGE, files_below, passed_over
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.pictures.masks import Colors, overlay, with_legend
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.segment.segmenter import Segmenter
from deeplab_lit.types import Classes

if TYPE_CHECKING:  # torchvision, which it loads, takes a second, and `predict --help` needs none
    from deeplab_lit.network.deeplab import DeepLabV2

SOURCE = "image_sha256"  # text in a mask's PNG: of which file it was made
MAGIC = frozenset("*?[")


class Job(NamedTuple):
    """One image file, and where its results go."""

    image: Path
    mask: Path
    overlay: Path


class Labeled(NamedTuple):
    """A mask, and what its file says about it.

    Attributes:
        mask: (H,W) uint8, class indices and 255 for void.
        about: name → text, kept in the PNG.
    """

    mask: np.ndarray
    about: Mapping[str, str]


@dataclass(frozen=True)
class Results:
    """The two files that are written for an image, a mask and an overlay.

    Args:
        as_picture: turns class indices (H,W) uint8 into the picture that is written.
        colors: of the classes.
        opacity: of the colors over the image, 0…1.
        legend: names and colors of the classes, of which those in the image are listed below it.
            None: the overlay has the image's size.
    """

    as_picture: Callable[[np.ndarray], Image.Image]
    colors: Colors
    opacity: float = 0.5
    legend: Classes | None = None

    def write(self, job: Job, image: np.ndarray, labeled: Labeled) -> None:
        """Write overlay and mask, the mask last, with the SHA-256 of the image in it."""
        blended = overlay(image, labeled.mask, self.colors, self.opacity)
        if self.legend is not None:
            blended = with_legend(blended, labeled.mask, self.legend)
        save(Image.fromarray(blended), job.overlay, quality=92)
        info = PngInfo()
        for name, text in {**labeled.about, SOURCE: sha256_of(job.image)}.items():
            info.add_text(name, text)
        save(self.as_picture(labeled.mask), job.mask, pnginfo=info)


class _Images(Dataset):
    """Reads images as arrays; a broken one as its error message, so that the others go on."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray | str]:
        try:
            return index, read_image(self.jobs[index].image)
        except DataError as error:
            return index, str(error)


def segment_images(
    segmenter: Segmenter, jobs: Sequence[Job], results: Results, *, num_workers: int = 2
) -> list[str]:
    """Write mask and overlay of every image.

    Args:
        segmenter: segments each image.
        jobs: images and where their results go.
        results: how they are written.
        num_workers: processes that read images ahead.

    Returns:
        A sentence for each image that could not be read.
    """
    problems: list[str] = []
    for job, image, mask in segment_each(segmenter, jobs, problems, num_workers=num_workers):
        results.write(job, image, Labeled(mask, {}))
    return problems


def segment_each(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    problems: list[str],
    *,
    read: Callable[[Tensor], Any] | None = None,
    num_workers: int = 2,
    title: str = "predicting",
) -> Iterator[tuple[Job, np.ndarray, Any]]:
    """Yield every image that can be read with what the network makes of it, in any order.

    Args:
        segmenter: segments each image.
        jobs: the images.
        problems: gets a sentence for each image that could not be read.
        read: as for `Segmenter.many`; None: class indices (H,W) uint8.
        num_workers: processes that read images ahead.
        title: of the progress bar.

    Yields:
        The job, its image (H,W,3) uint8, and what `read` returns.
    """
    images = DataLoader(_Images(jobs), batch_size=None, num_workers=min(num_workers, len(jobs)))
    with progress_bar(desc=title, total=len(jobs), unit=" images", disable=not jobs) as progress:
        readable = _readable(images, segmenter, problems, progress)
        for index, image, result in segmenter.many(readable, read):
            yield jobs[index], image.numpy(), result
            progress.update()


def _readable(
    images: Iterable[tuple[int, Tensor | str]],
    segmenter: Segmenter,
    problems: list[str],
    progress: tqdm,
) -> Iterator[tuple[int, Tensor]]:
    """Yield the images that could be read; print the errors of others and add to `problems`."""
    is_cost_printed = False
    for index, image in images:
        if isinstance(image, str):
            problems.append(image)
            tqdm.write(image, file=sys.stderr)
            progress.update()
            continue
        if not is_cost_printed:
            tqdm.write(segmenter.cost((image.shape[0], image.shape[1])))
            is_cost_printed = True
        yield index, image


def is_done(job: Job) -> bool:
    """Tell whether both results exist, and were made of the present content of the image file."""
    try:
        with Image.open(job.mask, formats=["PNG"]) as mask:
            digest = mask.info.get(SOURCE)
    except (OSError, SyntaxError, ValueError):  # not there, or no picture
        return False
    return job.overlay.is_file() and digest == sha256_of(job.image)


def save(picture: Image.Image, path: Path, **options: Any) -> None:
    """Write a picture atomically, as PNG or JPEG by its suffix.

    Args:
        picture: to write.
        path: of the file; folders are made.
        options: of Pillow's `save`.

    Raises:
        OSError: the disk is full, or forbids it.
    """
    encoded = BytesIO()  # Pillow does not see that a disk takes only a part of a JPEG
    picture.save(encoded, format="PNG" if path.suffix == ".png" else "JPEG", **options)
    with atomic_write(path) as place:
        place.write_bytes(encoded.getbuffer())


def label_values(net: "DeepLabV2", path: str) -> list[int]:
    """Return the value that each class index of a network has in the label files trained on.

    Args:
        net: as it was loaded.
        path: of its file.

    Raises:
        DataError: the file does not say it.
    """
    values = net.label_values or {}
    unknown = [name for name in net.classes if name not in values]
    if unknown:
        raise DataError(
            f"--mask_values labels: {path} does not say which value {unknown[0]} has in labels "
            "(fit writes that into checkpoints; older ones are without it): leave out --mask_values"
        )
    return [values[name] for name in net.classes]


def about_values(net: "DeepLabV2", values: Sequence[int] | None) -> Iterator[str]:
    """Yield what to know of masks whose values may not be those of the label files trained on.

    Args:
        net: that has made the masks.
        values: that they hold for each class index; None: the indices.
    """
    if net.label_values is None:
        yield (
            "Masks hold class indices; the network's file does not say which values its labels had"
        )
    labels = net.label_values or {}
    moved = [(name, i, labels.get(name, i)) for i, name in enumerate(net.classes)]
    moved = [(name, index, value) for name, index, value in moved if index != value]
    if moved and values is None:
        name, index, value = moved[0]
        yield (
            "Masks hold class indices, which are not the values of the label files trained on: "
            f"{name} is {index} here and {value} there. --mask_values labels writes theirs."
        )


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
