"""Image-level labels: which classes an image may hold, as weakly-supervised methods list them.

| file | an entry |
|---|---|
| `cls_labels.npy` | of a dictionary: id → C − 1 numbers, 1 for each class that the image has |
| text | a line: `2007_000032 0 14`, or `2007_000032 aeroplane person` |

Numbers count the foreground from 0: number n is class n + 1, since class 0 is the background, which
every image may hold. Names of classes that have spaces stand between commas. An id may be written
as its number: 2007000032 for 2007_000032, as IRN's lists do, and 9 for COCO's 000000000009.

The probability of a class that the labels of an image rule out becomes 0, and the others are
divided by their sum.

Letters: C classes.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deeplab_lit.data.id_lists import IdList, indices_of
from deeplab_lit.data.image import DataError, read_image
from deeplab_lit.data.npy_files import read_npy
from deeplab_lit.data.paths import read_lines, refuse_repetitions
from deeplab_lit.segment.find_images import ids_of
from deeplab_lit.segment.images import Job
from deeplab_lit.segment.segmenter import Segmenter
from deeplab_lit.text import first_few, plural

BACKGROUND = ("background", "bg")
LOOKED_AT = 8  # images whose labels are compared with what the network sees
MOST_STEPS = 10_000_000  # of the pickle of a dictionary of some 100,000 images
WHOLE = re.compile(r"[0-9]{1,18}")
NUMBER = re.compile(r"(?:COCO_[a-z]+\d+_)?(\d+(?:_\d+)?)")  # of an image, in the name of its file


class ImageLabels(NamedTuple):
    """The image-level labels of images.

    Attributes:
        present: name of an image → indices of the classes that it may hold, the background's too.
        about: sentences on the list, for the user.
    """

    present: dict[Path, tuple[int, ...]]
    about: list[str]


def read_image_labels(
    path: Path, images: Mapping[Path, Path], classes: Sequence[str]
) -> ImageLabels:
    """Return which classes each image may hold.

    Args:
        path: of the list.
        images: name → file, as `find_images` gives them.
        classes: names of the network's, C of them.

    Raises:
        DataError: the list cannot be read; a label is no class; an image has no entry, or two.
    """
    read = _of_vectors if path.suffix == ".npy" else _of_lines
    entries = read(path, classes)
    of_images = _matched(path, list(entries), images)
    missing = [str(name) for name in images if name not in of_images]
    if missing:
        raise DataError(
            f"--image_labels {path} has no entry for {len(missing):,} of "
            f"{plural(len(images), 'image')} ({first_few(missing)}); it has "
            f"{plural(len(entries), 'entry')} ({first_few(list(entries))}). --ids names the images "
            "to look at"
        )
    present = {name: (0, *entries[entry]) for name, entry in of_images.items()}
    return ImageLabels(present, list(_about(path, entries, present, classes)))


def _of_vectors(path: Path, classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read a dictionary of vectors: entry → class indices from 1 up."""
    content = read_npy(path, MOST_STEPS)
    if not isinstance(content, dict):
        raise DataError(f"{path} holds an array, expected a dictionary: id → vector of labels")
    expected = len(classes) - 1
    entries = {}
    for id, vector in content.items():
        values = np.asarray(vector)
        if values.shape != (expected,):
            found = f"{len(values)} numbers" if values.ndim == 1 else f"an array {values.shape}"
            hint = ""
            if values.shape == (len(classes),):
                hint = ". It seems to count the background too: leave out its number"
            raise DataError(
                f"{path}: {id} has {found}, expected {expected} numbers, one for each class of the "
                f"network but its first, {classes[0]}{hint}"
            )
        if not np.isin(values, (0, 1)).all():
            raise DataError(f"{path}: {id} has the numbers {values[:5]}…, expected 0 and 1 alone")
        entries[str(id)] = tuple((np.flatnonzero(values) + 1).tolist())
    if not entries:
        raise DataError(f"{path} has no entry")
    return entries


def _of_lines(path: Path, classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read lines of an id and labels: entry → class indices from 1 up."""
    if not path.exists():
        raise DataError(f"--image_labels {path}: no such file")
    lines = [line for line in read_lines(path) if line and not line.startswith("#")]
    if not lines:
        raise DataError(f"{path} has no entry, expected lines like: 2007_000032 0 14")
    parted = [[*re.split(r"[\s,:]+", line, maxsplit=1), ""] for line in lines]
    refuse_repetitions(path, [id for id, *_ in parted])
    words = [
        (id, [word.strip() for word in (text.split(",") if "," in text else text.split())])
        for id, text, *_ in parted
    ]
    numbers = [int(word) for _, labels in words for word in labels if WHOLE.fullmatch(word)]
    last = len(classes) - 2
    if numbers and max(numbers) > last:
        id = next(id for id, labels in words if str(max(numbers)) in labels)
        hint = ""
        if max(numbers) == last + 1 and 0 not in numbers:
            hint = f". It seems to count from 1, for 0 ({classes[1]}) never occurs: subtract 1"
        raise DataError(
            f"{path}: {id} has the label {max(numbers)}, expected 0…{last}, the classes of the "
            f"network without its first, {classes[0]}{hint}"
        )
    index_of = {name: index for index, name in enumerate(classes)}
    index_of |= {str(number): number + 1 for number in range(last + 1)}
    entries = {}
    for id, labels in words:
        if unknown := [word for word in labels if word and word not in index_of]:
            raise DataError(
                f"{path}: {id} has the label {unknown[0]!r}, expected a number in 0…{last} or the "
                f"name of a class ({first_few(list(classes)[1:])}); names with spaces stand "
                "between commas"
            )
        entries[id] = tuple(sorted({index_of[word] for word in labels if word} - {0}))
    return entries


def _matched(path: Path, entries: list[str], images: Mapping[Path, Path]) -> dict[Path, str]:
    """Return the entry of each image that has one.

    Raises:
        DataError: an entry may be of several images, or an image has two.
    """
    names, files = list(images), list(images.values())
    found, others = indices_of(IdList(path, entries, ""), ids_of(images), files)
    unmatched = set(others)
    there = (entry for entry in entries if entry not in unmatched)
    matched = {names[index]: entry for index, entry in zip(found, there, strict=True)}
    by_number = defaultdict(list)
    for name, file in images.items():
        if number := NUMBER.fullmatch(file.stem):
            by_number[int(number[1].replace("_", ""))].append(name)
    for entry in filter(WHOLE.fullmatch, others):
        fitting = by_number.get(int(entry), [])
        if len(fitting) > 1 or any(name in matched for name in fitting):
            raise DataError(
                f"{path}: {entry} may be any of {first_few([str(name) for name in fitting])}, or "
                "one of them has two entries"
            )
        matched |= dict.fromkeys(fitting, entry)
    return matched


def _about(
    path: Path,
    entries: Mapping[str, tuple[int, ...]],
    present: Mapping[Path, tuple[int, ...]],
    classes: Sequence[str],
) -> Iterator[str]:
    """Yield what a list holds."""
    labels = Counter(index for indices in entries.values() for index in indices)
    others = len(entries) - len(present)
    verb = "is" if others == 1 else "are"
    yield (
        f"Image-level labels: {path} has {plural(labels.total(), 'label')} of "
        f"{plural(len(labels), 'class')} for {plural(len(entries), 'image')}"
        + (f"; {plural(others, 'image')} of these {verb} not looked at here" if others else "")
    )
    if classes[0].strip("_").lower() not in BACKGROUND:
        yield f"WARNING: class 0, {classes[0]}, is taken for the background: it may be anywhere"
    if bare := sum(len(indices) == 1 for indices in present.values()):
        yield f"{plural(bare, 'image')} without a label may hold nothing but {classes[0]}"
    if labels and not labels[1]:
        yield (
            f"Note: the first label, {classes[1]}, occurs nowhere in the list; if its numbers "
            "count from 1, subtract 1"
        )


def agreement(segmenter: Segmenter, jobs: Sequence[Job]) -> str:
    """Compare labels with what the network sees without them in a few images, as a sentence.

    Args:
        segmenter: with the network; its CRF is not asked.
        jobs: with the classes that each image may hold.
    """
    plain = Segmenter(segmenter.net, segmenter.inference)
    seen = ruled_out = number = 0
    for job in jobs[:: -(-len(jobs) // LOOKED_AT)]:
        try:
            labels = plain(read_image(job.image))
        except DataError:
            continue  # which is told when its turn comes
        foreground = labels[labels > 0]
        seen += foreground.size
        ruled_out += int((~np.isin(foreground, job.present or ())).sum())
        number += 1
    if not seen:
        return f"WARNING: the network sees no foreground in {plural(number, 'image')}"
    share = ruled_out / seen
    warning = "WARNING: do the labels count otherwise than the network? " if share > 0.5 else ""
    return (
        f"{warning}Of the foreground that the network sees in {plural(number, 'image')}, labels "
        f"rule out {share:.1%}"
    )
