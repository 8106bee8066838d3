"""Segment image files into masks and overlays, going on where it was stopped."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.image import DataError, read_image
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.pictures.masks import Colors, overlay, with_legend
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.segment.probability_files import MEASURED, Size, in_words, keep, room_for
from deeplab_lit.segment.segmenter import Segmenter, class_indices
from deeplab_lit.types import Classes

SOURCE = "image_sha256"  # text in a mask's PNG: of which file it was made


class Job(NamedTuple):
    """One image file, and where its results go.

    Attributes:
        image: the file.
        mask: of the results.
        overlay: of the results.
        probabilities: of the results; None: they are not kept.
        present: indices of the classes that the image may hold; None: all.
    """

    image: Path
    mask: Path
    overlay: Path
    probabilities: Path | None = None
    present: tuple[int, ...] | None = None


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
        read: what is made of the probabilities (C,H,W); several threads call it where a CRF is on
            the CPU. None: class indices (H,W) uint8.
        num_workers: processes that read images ahead.
        title: of the progress bar.

    Yields:
        The job, its image (H,W,3) uint8, and what `read` returns.

    Raises:
        NoRoomError: by the first files of probabilities, the others have no room on the disk.
    """
    keeps = sum(job.probabilities is not None for job in jobs)
    sizes: list[Size] = []

    def finish(index: int, probabilities: Tensor) -> Any:
        if (path := jobs[index].probabilities) is not None:
            sizes.append(keep(path, probabilities.cpu().numpy()))
        return class_indices(probabilities) if read is None else read(probabilities)

    images = DataLoader(_Images(jobs), batch_size=None, num_workers=min(num_workers, len(jobs)))
    with progress_bar(desc=title, total=len(jobs), unit=" images", disable=not jobs) as progress:
        readable = _readable(images, segmenter, problems, progress)
        done = segmenter.many(
            readable,
            finish if keeps or read is not None else None,
            lambda index: jobs[index].present,
        )
        for number, (index, image, result) in enumerate(done, start=1):
            yield jobs[index], image.numpy(), result
            progress.update()
            if sizes and number == min(MEASURED, len(jobs)):
                tqdm.write(room_for(sizes, keeps))
    if len(sizes) > MEASURED:
        print(f"Probabilities: {in_words(sizes)}")


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
    """Tell whether all results exist, and were made of the present content of the image file."""
    digest = texts_of(job.mask).get(SOURCE)
    if digest is None:
        return False
    return job.overlay.is_file() and has_kept(job) and digest == sha256_of(job.image)


def texts_of(mask: Path) -> dict[str, str]:
    """Return the texts in a mask's PNG; nothing where it is not there, or no picture."""
    try:
        with Image.open(mask, formats=["PNG"]) as picture:
            info = picture.info.items()
            return {str(name): text for name, text in info if isinstance(text, str)}
    except (OSError, SyntaxError, ValueError):
        return {}


def has_kept(job: Job) -> bool:
    """Tell whether the file of probabilities exists, where one is wanted."""
    return job.probabilities is None or job.probabilities.is_file()


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
