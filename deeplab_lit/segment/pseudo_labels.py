"""Pseudo-labels: a network's predictions as masks to train on, void where it is not sure.

Where the rule needs all images (`segment/confidence.py`) they are gone through twice. The first
pass leaves a file for each image in first_pass/: how many pixels of each class have each
probability. For BDL's rule it also holds the labels and their probabilities, so that the second
pass needs no network; CBST's compares the probabilities of all classes and needs it again. An
interrupted run goes on from the files that are there; the folder is removed in the end.

Letters: C classes · H×W image.
"""

import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.image import DataError, read_image
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.segment.confidence import (
    CAP,
    STEPS,
    Rule,
    counts_of,
    most_probable,
    steps,
    sure,
)
from deeplab_lit.segment.images import Job, Labeled, Results, segment_each
from deeplab_lit.segment.segmenter import Segmenter
from deeplab_lit.text import first_few, plural
from deeplab_lit.types import VOID

SUMMARY = "pseudo_labels.json"
FIRST_PASS = "first_pass"
PREDICTED, KEPT = "pixels_predicted", "pixels_kept"  # of each class, as text in a mask's PNG


class Look(NamedTuple):
    """Hold what the first pass keeps of an image.

    Attributes:
        cells: places that are not 0 in the table (C,64001) of `counts_of`, flat and in order.
        numbers: of pixels counted there.
        labels: (H,W) uint8, the most probable class; (0,0) where it is not needed again.
        confidence: (H,W) uint16, the step of its probability, but at most that of BDL's highest
            threshold: the same values compress well, and what is above is kept anyway.
    """

    cells: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray


def digest_of(jobs: Sequence[Job], out: Path) -> str:
    """Return the SHA-256 of the names and contents of all images, on which thresholds depend."""
    digest = hashlib.sha256()
    for job in progress_bar(jobs, desc="reading", unit=" images", leave=False):
        digest.update(f"{job.mask.relative_to(out)} {sha256_of(job.image)}\n".encode())
    return digest.hexdigest()


def write_pseudo_labels(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    todo: Sequence[Job],
    results: Results,
    rule: Rule,
    *,
    out: Path,
    about: dict[str, Any],
    num_workers: int,
) -> list[str]:
    """Write the masks that are not there yet, and pseudo_labels.json; print what came out.

    Args:
        segmenter: gives the probabilities.
        jobs: images and where their results go.
        todo: those whose results are not there yet.
        results: how they are written.
        rule: of the thresholds.
        out: folder of all results.
        about: what the masks are made with, for pseudo_labels.json.
        num_workers: processes that read images ahead.

    Returns:
        A sentence for each image that could not be read.
    """
    problems: list[str] = []
    names = list(segmenter.net.classes)
    each = partial(segment_each, segmenter, problems=problems, num_workers=num_workers)
    looks = {job: out / FIRST_PASS / job.mask.relative_to(out).with_suffix(".gz") for job in jobs}
    thresholds = _known_thresholds(out / SUMMARY)
    if thresholds is None:
        if rule.needs_all:
            unseen = [job for job in jobs if not looks[job].is_file()]
            look = partial(_look, rule=rule, num_classes=len(names))
            for job, _, found in each(unseen, read=look, title="first pass"):
                _write_look(found, looks[job])
            todo = [job for job in todo if looks[job].is_file()]
        seen = [path for path in looks.values() if path.is_file()]
        thresholds = rule.thresholds(_counts(seen, len(names)))
        _save(out / SUMMARY, {"finished": False, **about, "thresholds": thresholds})
    stored = {job for job in todo if rule.kind == "bdl" and looks[job].is_file()}
    for job, image, labeled in _from_looks([j for j in todo if j in stored], looks, thresholds):
        results.write(job, image, labeled)
    decide = partial(_decide, rule=rule, thresholds=thresholds)
    rest = [job for job in todo if job not in stored]
    title = "second pass" if rule.needs_all else "predicting"
    for job, image, labeled in each(rest, read=decide, title=title):
        results.write(job, image, labeled)
    summary = _summary(jobs, names, thresholds)
    print(in_words(summary))
    _save(out / SUMMARY, {"finished": not problems, **about, "thresholds": thresholds, **summary})
    if not problems:
        shutil.rmtree(out / FIRST_PASS, ignore_errors=True)
    return problems


def _look(probabilities: Tensor, rule: Rule, num_classes: int) -> Look:
    """Return what the first pass keeps of an image's probabilities (C,H,W)."""
    labels, confidence = most_probable(probabilities)
    step = steps(confidence)
    counts = counts_of(labels, step, num_classes).ravel()
    cells = np.flatnonzero(counts)
    if rule.kind != "bdl":
        labels, step = labels[:0, :0], step[:0, :0]
    capped = np.minimum(step, steps(np.array(CAP)))
    return Look(cells.astype(np.uint32), counts[cells].astype(np.uint32), labels, capped)


def _decide(probabilities: Tensor, rule: Rule, thresholds: list[float]) -> Labeled:
    """Return the pseudo-labels of an image's probabilities (C,H,W)."""
    labels, _ = most_probable(probabilities)
    return _labeled(rule.labels(probabilities, thresholds), labels, len(thresholds))


def _from_looks(
    jobs: Sequence[Job], looks: dict[Job, Path], thresholds: list[float]
) -> Iterator[tuple[Job, np.ndarray, Labeled]]:
    """Yield images with the pseudo-labels of what the first pass has kept of them."""
    limits = steps(np.array(thresholds))
    for job in progress_bar(jobs, desc="second pass", unit=" images", disable=not jobs):
        look = _read_look(looks[job])
        mask = sure(look.labels, look.confidence, limits)
        yield job, read_image(job.image), _labeled(mask, look.labels, len(thresholds))


def _labeled(mask: np.ndarray, labels: np.ndarray, num_classes: int) -> Labeled:
    """Return pseudo-labels (H,W) with the pixels of each class before and after, as text."""
    pixels = {PREDICTED: labels, KEPT: mask[mask != VOID]}
    counts = {
        name: np.bincount(values.ravel(), minlength=num_classes).tolist()
        for name, values in pixels.items()
    }
    return Labeled(mask, {name: json.dumps(numbers) for name, numbers in counts.items()})


def _write_look(look: Look, path: Path) -> None:
    # of the places their differences, which compress well
    arrays = [np.diff(look.cells, prepend=np.uint32(0)), *look[1:]]
    with atomic_write(path) as place, gzip.open(place, "wb", compresslevel=1) as file:
        for array in arrays:
            np.save(file, array)


def _read_look(path: Path, *, whole: bool = True) -> Look:
    """Read what the first pass has kept of an image; without labels unless `whole`.

    Raises:
        DataError: the file is damaged.
    """
    nothing = np.zeros((0, 0), np.uint8)
    try:
        with gzip.open(path, "rb") as file:
            differences, numbers, *pictures = [
                np.lib.format.read_array(file, allow_pickle=False) for _ in range(4 if whole else 2)
            ]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is damaged: remove it and start again") from error
    labels, confidence = pictures or (nothing, nothing)
    return Look(np.cumsum(differences, dtype=np.uint32), numbers, labels, confidence)


def _counts(looks: Sequence[Path], num_classes: int) -> np.ndarray:
    """Return the pixels of each class and step in all images, (C,64001) int64."""
    counts = np.zeros((num_classes, STEPS[-1] + 1), np.int64)
    for path in looks:
        look = _read_look(path, whole=False)
        counts.ravel()[look.cells] += look.numbers
    return counts


def _known_thresholds(path: Path) -> list[float] | None:
    """Return the thresholds of a first pass that is done; None: it is not.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return [float(value) for value in json.loads(path.read_text("utf-8"))["thresholds"]]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged: choose another folder") from error


def _save(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as place:
        place.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _summary(jobs: Sequence[Job], names: Sequence[str], thresholds: list[float]) -> dict[str, Any]:
    """Sum up the masks that are there, from the text in their files."""
    counts = {PREDICTED: np.zeros(len(names), np.int64), KEPT: np.zeros(len(names), np.int64)}
    images = void = 0
    for job in jobs:
        if not job.mask.is_file():
            continue
        with Image.open(job.mask, formats=["PNG"]) as mask:
            numbers = {name: np.array(json.loads(mask.info[name]), np.int64) for name in counts}
        counts = {name: total + numbers[name] for name, total in counts.items()}
        images, void = images + 1, void + (not numbers[KEPT].any())
    predicted, kept = (counts[name].tolist() for name in (PREDICTED, KEPT))
    pixels = sum(predicted)
    return {
        "images": images,
        "images_all_void": void,
        "share_void": 1 - sum(kept) / pixels if pixels else None,
        "classes": {
            name: {
                "threshold": threshold,
                PREDICTED: p,
                KEPT: k,
                "share_kept": k / p if p else None,
            }
            for name, threshold, p, k in zip(names, thresholds, predicted, kept, strict=True)
        },
    }


def in_words(summary: dict[str, Any]) -> str:
    """Return a summary as text: a row for each class, and what is void."""
    classes: dict[str, dict[str, Any]] = summary["classes"]
    pixels = sum(row[PREDICTED] for row in classes.values())
    if not pixels:
        return "No pseudo-labels were written."
    width = max(map(len, classes))
    lines = [" " * width + f"{'threshold':>11}{'predicted':>11}{'kept':>9}"]
    lines += [
        f"{name:<{width}}{row['threshold']:>11.4f}{row[PREDICTED] / pixels:>11.2%}"
        + ("–".rjust(9) if row["share_kept"] is None else f"{row['share_kept']:>9.2%}")
        for name, row in classes.items()
    ]
    void, images = summary["images_all_void"], summary["images"]
    lines.append(
        f"Void: {summary['share_void']:.2%} of the pixels of {plural(images, 'image')}"
        + (f"; {void:,} of them {'is' if void == 1 else 'are'} nothing but void" if void else "")
    )
    if never := [name for name, row in classes.items() if not row[PREDICTED]]:
        lines.append(
            f"WARNING: the network never predicts {first_few(never)}: these masks teach nothing "
            "of that"
        )
    return "\n".join(lines)
