"""Pseudo-labels: a network's predictions as masks to train on, void where it is not sure.

Where the rule needs all images (`segment/confidence.py`) they are gone through twice. The first
pass leaves a file for each image in first_pass/: how many pixels of each class have each
probability. For BDL's rule it also holds the labels and their probabilities, so that the second
pass needs no network; CBST's compares the probabilities of all classes and needs it again. An
interrupted run goes on from the files that are there; the folder is removed in the end.

Letters: C classes · H×W image.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.image import DataError, read_image
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.segment.confidence import Rule, most_probable, steps, sure
from deeplab_lit.segment.first_pass import counts_in, look_at, read_look, write_look
from deeplab_lit.segment.images import Job, Labeled, Results, has_kept, segment_each
from deeplab_lit.segment.segmenter import Segmenter
from deeplab_lit.text import first_few, plural
from deeplab_lit.types import VOID

SUMMARY = "pseudo_labels.json"
FIRST_PASS = "first_pass"
PREDICTED, KEPT = "pixels_predicted", "pixels_kept"  # of each class, as text in a mask's PNG


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
            unseen = [job for job in jobs if not (looks[job].is_file() and has_kept(job))]
            look = partial(look_at, rule=rule, num_classes=len(names))
            for job, _, found in each(unseen, read=look, title="first pass"):
                write_look(found, looks[job])
            todo = [job for job in todo if looks[job].is_file()]
        seen = [path for path in looks.values() if path.is_file()]
        thresholds = rule.thresholds(counts_in(seen, len(names)))
        _save(out / SUMMARY, {"finished": False, **about, "thresholds": thresholds})
    looked_at = {job for job in todo if looks[job].is_file() and has_kept(job)}
    stored = [job for job in todo if rule.kind == "bdl" and job in looked_at]
    for job, image, labeled in _from_looks(stored, looks, thresholds):
        results.write(job, image, labeled)
    decide = partial(_decide, rule=rule, thresholds=thresholds)
    rest = [  # without the probabilities, where the first pass has kept them
        job._replace(probabilities=None) if job in looked_at else job
        for job in todo
        if rule.kind != "bdl" or job not in looked_at
    ]
    title = "second pass" if rule.needs_all else "predicting"
    for job, image, labeled in each(rest, read=decide, title=title):
        results.write(job, image, labeled)
    summary = _summary(jobs, names, thresholds)
    print(in_words(summary))
    _save(out / SUMMARY, {"finished": not problems, **about, "thresholds": thresholds, **summary})
    if not problems:
        shutil.rmtree(out / FIRST_PASS, ignore_errors=True)
    return problems


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
        look = read_look(looks[job])
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
    with_class, listed = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    images = void = 0
    for job in jobs:
        if not job.mask.is_file():
            continue
        with Image.open(job.mask, formats=["PNG"]) as mask:
            numbers = {name: np.array(json.loads(mask.info[name]), np.int64) for name in counts}
        counts = {name: total + numbers[name] for name, total in counts.items()}
        images, void = images + 1, void + (not numbers[KEPT].any())
        with_class += numbers[KEPT] > 0
        listed[list(job.present or ())] += 1
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
                "images": n,
                **({"images_listed": m} if any(listed) else {}),
            }
            for name, threshold, p, k, n, m in zip(
                *(names, thresholds, predicted, kept, with_class.tolist(), listed.tolist()),
                strict=True,
            )
        },
    }


def in_words(summary: dict[str, Any]) -> str:
    """Return a summary as text: a row for each class, and what is void.

    `images` are those whose masks have the class, `listed` those whose image-level labels do.
    """
    classes: dict[str, dict[str, Any]] = summary["classes"]
    pixels = sum(row[PREDICTED] for row in classes.values())
    if not pixels:
        return "No pseudo-labels were written."
    width = max(map(len, classes))
    listed = any("images_listed" in row for row in classes.values())
    last = f"{'images':>9}" + (f"{'listed':>9}" if listed else "")
    lines = [" " * width + f"{'threshold':>11}{'predicted':>11}{'kept':>9}{last}"]
    lines += [
        f"{name:<{width}}{row['threshold']:>11.4f}{row[PREDICTED] / pixels:>11.2%}"
        + ("–".rjust(9) if row["share_kept"] is None else f"{row['share_kept']:>9.2%}")
        + f"{row['images']:>9,}"
        + (f"{row['images_listed']:>9,}" if listed else "")
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
