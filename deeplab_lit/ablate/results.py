"""What the runs of an ablation left: scores, counts of every image, curves, time."""

import csv
import json
import math
import statistics
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import deeplab_lit
from deeplab_lit.ablate.plan import Run

DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    EOFError,
    MemoryError,
    RecursionError,
    csv.Error,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class ResultError(ValueError):
    """A file of a run is damaged; says which and how."""


@dataclass(frozen=True)
class Result:
    """A run that is done. Scores are fractions in 0…1.

    Attributes:
        run: which.
        scores: of the validation, as results.json holds them; with "crf" those after the CRF.
        fit: results.json of the training.
        curve: (optimizer step, mIoU) of each validation during training.
        images_per_second: median over the training; null if it was too short to be measured.
        parameters: learnable ones of the network.
        images: images.npz of the validation: ids, counts, counts_crf; empty if there is none.
        validation: results.json of the validation.
    """

    run: Run
    scores: dict[str, Any]
    fit: dict[str, Any]
    curve: list[tuple[int, float]]
    images_per_second: float | None
    parameters: int
    images: dict[str, np.ndarray]
    validation: dict[str, Any] = field(default_factory=dict)

    def scored(self, after_crf: bool) -> dict[str, Any]:
        """`miou`, `iou` of each class, and what else results.json has."""
        return self.scores["crf"] if after_crf else self.scores

    @property
    def miou(self) -> float:
        """Before the CRF; NaN where nothing could be scored."""
        return _number(self.scores["miou"])

    @property
    def miou_crf(self) -> float | None:
        """After the CRF; null if there was none."""
        return _number(self.scores["crf"]["miou"]) if "crf" in self.scores else None


def read_results(runs: Sequence[Run]) -> list[Result]:
    """Of all runs that are done; damaged ones are left out as those are that are not done."""
    found = []
    for run in runs:
        try:
            found.append(read_result(run))
        except ResultError:
            continue
    return [result for result in found if result is not None]


def read_result(run: Run) -> Result | None:
    """Of a run; null if it is not done.

    Raises:
        ResultError: a file of it is damaged.
    """
    fit_file, validation_file = (step.folder / "results.json" for step in (run.fit, run.validate))
    fit, validation = read_json(fit_file), read_json(validation_file)
    checkpoint = run.fit.folder / "checkpoints/best.ckpt"
    if not fit or not validation.get("finished") or not checkpoint.is_file():
        return None
    with _named(fit_file):
        fit = _about(fit)
    with _named(validation_file):
        validation = _about(validation)
        scores = _checked(dict(validation["final"]))
    metrics = run.fit.folder / "metrics.csv"
    with _named(metrics):
        columns = read_metrics(metrics)
    with _named(checkpoint):
        net = deeplab_lit.load(checkpoint)
    images = run.validate.folder / "images.npz"
    with _named(images):
        counts = _counts(images, len(scores["iou"])) if images.is_file() else {}
    speeds = [value for _, value in columns.get("train/images_per_second", [])]
    return Result(
        run=run,
        scores=scores,
        fit=fit,
        curve=columns.get("val/miou", []),
        images_per_second=statistics.median(speeds) if speeds else None,
        parameters=sum(p.numel() for p in net.parameters() if p.requires_grad),
        images=counts,
        validation=validation,
    )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What goes wrong inside is the damage of this file."""
    try:
        yield
    except DAMAGE as error:
        words = repr(error) if isinstance(error, KeyError) else str(error)
        named = words if str(path) in words else f"{path} is damaged: {words}"
        raise ResultError(named) from error


def _about(fit: dict[str, Any]) -> dict[str, Any]:
    """The record of a run, with all in it that a report shows."""
    seconds = float(fit["wall_seconds"])
    if not seconds >= 0:
        raise ValueError(f"wall_seconds is {seconds}")
    commit = fit.get("git_commit")
    shown = {"wall_seconds": seconds, "device": str(fit["device"])}
    if "steps" in fit:
        shown |= {"steps": int(fit["steps"])}
    shown |= {"git_commit": None if commit is None else str(commit)}
    return fit | shown | {"versions": dict(fit["versions"])}


def _checked(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores in which whatever is there is a fraction or None."""
    for own in (scores, *([scores["crf"]] if "crf" in scores else [])):
        for value in (own["miou"], *dict(own["iou"]).values()):
            if value is not None and not 0 <= value <= 1 and not math.isnan(value):
                raise ValueError(f"a score is {value}")
    return scores


def _counts(path: Path, num_classes: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except Exception as error:  # NumPy has no common class for what a bad file makes it raise
        raise ValueError(str(error) or type(error).__name__) from error
    for name, counts in arrays.items():
        if name == "ids":
            continue
        if counts.shape != (len(arrays["ids"]), 3, num_classes):
            raise ValueError(f"{name} has the shape {counts.shape}")
        if counts.dtype.kind not in "iu" or counts.min(initial=0) < 0:
            raise ValueError(f"{name} holds something else than counts")
    if "counts" not in arrays:
        raise ValueError("there are no counts in it")
    return arrays


def read_metrics(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Column → (optimizer steps done, value) of each row that has one."""
    columns: dict[str, list[tuple[int, float]]] = {}
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                step = int(row.pop("step")) + 1
                for name, value in row.items():
                    if value:
                        columns.setdefault(name, []).append((step, float(value)))
    return columns


def read_json(path: Path) -> dict[str, Any]:
    """Of a file; empty where there is none yet, or a damaged one."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
