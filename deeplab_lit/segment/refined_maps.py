"""Refine predictions that lie in files with the dense CRF, beside their images; no network.

The CRF sees the classes that are in a file alone, as IRN and CLIP-ES do it: a class that an image
is known not to hold cannot come back, and an image of 3 of 81 classes takes a tenth of the time.

Letters: C classes · K those in a file · H×W image.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from tqdm import tqdm

from deeplab_lit.crf import Refiner
from deeplab_lit.crf.pool import RefiningPool
from deeplab_lit.data.class_maps import ClassMaps, write_probabilities
from deeplab_lit.data.image import DataError, read_image
from deeplab_lit.data.map_rule import LABEL_FILES, MapRule, MapRuleError
from deeplab_lit.data.paths import files_below
from deeplab_lit.data.predicted_maps import read_prediction, soft_labels
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.pictures.masks import palette_image
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.segment.find_images import ids_of
from deeplab_lit.segment.images import SOURCE, save, texts_of
from deeplab_lit.text import first_few, plural
from deeplab_lit.types import VOID, Classes

MAP_SOURCE = "map_sha256"  # text in a mask's PNG: of which file of maps it was made


class MapJob(NamedTuple):
    """An image with its file of maps, and where the results go.

    Attributes:
        image: the file.
        maps: the file of maps or labels.
        mask: of the results.
        probabilities: of the results; None: they are not kept.
    """

    image: Path
    maps: Path
    mask: Path
    probabilities: Path | None

    def is_done(self) -> bool:
        """Tell whether all results exist, and were made of the present content of both files."""
        if self.probabilities is not None and not self.probabilities.is_file():
            return False
        texts = texts_of(self.mask)
        return SOURCE in texts and texts.items() >= self.sources().items()

    def sources(self) -> dict[str, str]:
        """Return what the mask's file says of where it comes from."""
        return {SOURCE: sha256_of(self.image), MAP_SOURCE: sha256_of(self.maps)}


class RefinedMask(NamedTuple):
    """The outcome of an image.

    Attributes:
        pixels: of the mask.
        void: of these.
    """

    pixels: int
    void: int


@dataclass(frozen=True)
class MapRefinement:
    """How maps become masks.

    Args:
        crf: the CRF.
        rule: which says where background is in maps without it.
        gt_prob: of labels, see `soft_labels`.
        certain: pixels whose class is less probable after the CRF are void. None: none is.
        classes: names and colors; what is no index of them is refused. None: any index, and masks
            are gray.
    """

    crf: Refiner
    rule: MapRule
    gt_prob: float
    certain: float | None = None
    classes: Classes | None = None

    def read(self, job: MapJob) -> tuple[np.ndarray, ClassMaps, int]:
        """Return an image (H,W,3) uint8, probabilities (K,H,W) of its classes, and C.

        Where labels are void everywhere, there are no classes. Without names, C is that of the
        file, or 0 where it does not tell it.

        Raises:
            DataError: a file cannot be read, they do not fit, or the maps cannot be used.
        """
        image = read_image(job.image)
        size = (image.shape[0], image.shape[1])
        number = len(self.classes) if self.classes else None
        found = read_prediction(job.maps, size, number, self.rule)
        if not isinstance(found, ClassMaps):
            if self.rule.background is not None:
                raise MapRuleError(f"{job.maps} holds labels, which need no rule: leave --rule out")
            return image, self._of_labels(job.maps, found), number or 0
        most = int(found.classes.max(initial=0)) + 1
        probabilities = self.rule.probabilities(found, number or most, size)
        present = np.flatnonzero(probabilities.any((1, 2)))
        is_whole = found.complete and len(found.classes) == most
        return (
            image,
            ClassMaps(present, probabilities[present], complete=True),
            number or (most if is_whole else 0),
        )

    def _of_labels(self, path: Path, labels: np.ndarray) -> ClassMaps:
        """Return the probabilities of labels.

        Raises:
            DataError: one is no class.
        """
        present = labels[labels != VOID]
        if not present.size:
            return ClassMaps(np.zeros(0, np.int64), np.zeros((0, *labels.shape), np.float32), True)
        if self.classes is not None and present.max() >= len(self.classes):
            raise DataError(
                f"{path}: the value {present.max()}, but --classes has "
                f"{plural(len(self.classes), 'class')}, counted from 0"
            )
        return soft_labels(labels, self.gt_prob)

    def write(
        self, job: MapJob, present: np.ndarray, num_classes: int, refined: Tensor
    ) -> RefinedMask:
        """Write what is refined, the mask last.

        Args:
            job: says where.
            present: (K,) indices of the classes.
            num_classes: C.
            refined: (K,H,W) probabilities.
        """
        values = refined.numpy()
        labels = present.astype(np.uint8)[values.argmax(0)]
        if self.certain is not None:
            labels[values.max(0) < self.certain] = VOID
        if job.probabilities is not None:
            of_all = np.zeros((num_classes, *labels.shape), np.float32)
            of_all[present] = values
            write_probabilities(job.probabilities, of_all)
        return self.write_mask(job, labels)

    def write_mask(self, job: MapJob, labels: np.ndarray) -> RefinedMask:
        """Write labels (H,W) uint8 as a mask, with the SHA-256 of what it was made of."""
        info = PngInfo()
        for name, text in job.sources().items():
            info.add_text(name, text)
        colors = list(self.classes.values()) if self.classes else None
        picture = palette_image(labels, colors) if colors else Image.fromarray(labels)
        save(picture, job.mask, pnginfo=info)
        return RefinedMask(labels.size, int((labels == VOID).sum()))


def map_jobs(
    images: Mapping[Path, Path], folder: Path, out: Path, *, probabilities: bool
) -> list[MapJob]:
    """Find the image of each file of maps.

    Args:
        images: name → file, as `find_images` gives them; there may be more than maps.
        folder: of the maps, called as the images; searched through.
        out: folder of the results, which are called as the maps.
        probabilities: they are kept too.

    Raises:
        DataError: there is none; one has no image, or more than one; or two have the same one.
    """
    files = [file for file in files_below(folder) if file.suffix.lower() in LABEL_FILES]
    files = sorted(file for file in files if out not in file.parents)
    if not files:
        raise DataError(f"--maps {folder}: no files there (looked for {' '.join(LABEL_FILES)})")
    called: defaultdict[str, set[Path]] = defaultdict(set)
    for (name, image), id in zip(images.items(), ids_of(images), strict=True):
        for title in (name.as_posix(), id, image.stem, id.rpartition("/")[2]):
            called[title].add(image)
    jobs: dict[Path, MapJob] = {}
    missing = []
    for file in files:
        place = file.relative_to(folder).with_suffix("").as_posix()
        there = called.get(place) or called.get(file.stem) or set()
        if len(there) > 1:
            shown = first_few([str(image) for image in sorted(there)])
            raise DataError(f"{file} may belong to {shown}: give one folder of images at a time")
        if not there:
            missing.append(place)
            continue
        (image,) = there
        kept = out / "probabilities" / f"{place}.npz" if probabilities else None
        job = MapJob(image, file, out / "masks" / f"{place}.png", kept)
        if (other := jobs.setdefault(image, job)) is not job:
            raise DataError(f"{other.maps} and {file} are both of {image}: remove one")
    if missing:
        raise DataError(
            f"--maps {folder}: {len(missing)} of {plural(len(files), 'file')} there have no image "
            f"of the same name among --images ({first_few(missing)})"
        )
    return list(jobs.values())


def refine_maps(
    refinement: MapRefinement, jobs: Sequence[MapJob], workers: int
) -> tuple[list[RefinedMask], list[str]]:
    """Write the results of all jobs, several at a time.

    Args:
        refinement: how.
        jobs: what.
        workers: threads.

    Returns:
        What came out of each; and a sentence for each that could not be read.
    """
    outcomes, problems = [], []
    pool = RefiningPool(refinement.crf, workers)
    with progress_bar(desc="refining", total=len(jobs), unit=" images") as progress:
        try:
            for job in jobs:
                try:
                    image, maps, number = refinement.read(job)
                except DataError as error:
                    problems.append(str(error))
                    tqdm.write(str(error), file=sys.stderr)
                    progress.update()
                    continue
                if len(maps.classes) == 0:
                    size, void = image.shape[:2], np.full(image.shape[:2], VOID, np.uint8)
                    if job.probabilities is not None and number:  # each class as probable
                        equal = np.full((number, *size), 1 / number, np.float32)
                        write_probabilities(job.probabilities, equal)
                    outcomes.append(refinement.write_mask(job, void))
                    progress.update()
                    continue
                write = partial(refinement.write, job, maps.classes, number)
                for done in pool.submit(job, image, maps.maps, write):
                    outcomes.append(done.labels)
                    progress.update()
            for done in pool.rest():
                outcomes.append(done.labels)
                progress.update()
        finally:
            pool.stop()
    return outcomes, problems
