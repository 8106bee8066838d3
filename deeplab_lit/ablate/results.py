"""Read what the runs of an ablation leave on disk: how far they are, scores, counts, curves, time.

Files are read while others write them, and after disks have failed: what a run has not written yet
is missing, and what is damaged is named.
"""

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
import yaml

import deeplab_lit
from deeplab_lit.ablate.plan import Run, Step
from deeplab_lit.errors import UserError
from deeplab_lit.network.cost import cost_of
from deeplab_lit.runs.csv_logger import read_metrics

DAMAGE = (  # what reading a damaged file may raise
    *(OSError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError, EOFError),
    *(MemoryError, RecursionError, csv.Error, struct.error, zipfile.BadZipFile, zlib.error),
)


class ResultError(ValueError):
    """A file of a run is damaged; names the file and the damage."""


@dataclass(frozen=True)
class Result:
    """A finished run. Scores are fractions in 0…1.

    Attributes:
        run: the run.
        scores: scores of the validation as in results.json; "crf": those after the CRF.
        fit: results.json of the training.
        curve: (optimizer step, mIoU) of each validation during training.
        images_per_second: median over the training; None: it was too short to be measured.
        parameters: number of learnable parameters of the network.
        images: arrays of the validation's images.npz: ids, counts (N,3,C), counts_crf; may be
            empty.
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
        """Return "miou", "iou" of each class and the other scores, before or after the CRF."""
        return self.scores["crf"] if after_crf else self.scores

    def mean_iou(self, after_crf: bool = False, subset: str = "") -> float | None:
        """Return the mIoU, of a subset of the classes if named; NaN: unknown; None: not scored."""
        scores = self.scores.get("crf", {}) if after_crf else self.scores
        name = f"miou{subset}"
        return _number(scores[name]) if name in scores else None

    @property
    def miou(self) -> float:
        """The mIoU of all classes before the CRF; NaN: unknown."""
        return _number(self.scores["miou"])

    @property
    def miou_crf(self) -> float | None:
        """The mIoU of all classes after the CRF, NaN: unknown; None: it was not run."""
        return self.mean_iou(after_crf=True)

    @property
    def subsets(self) -> dict[str, dict[str, float | None]]:
        """Subsets of the classes that are scored too, as "16", each with the IoU of its classes."""
        return self.scores.get("subsets", {}).get("iou", {})

    @property
    def rule(self) -> str | None:
        """By which rule subsets are scored; None: none is."""
        return self.scores.get("subsets", {}).get("rule")


def read_results(runs: Sequence[Run]) -> tuple[list[Result], dict[Run, ResultError]]:
    """Read the results of all finished runs.

    Returns:
        The results, in the order of the runs; and for each run with a damaged file the error.
    """
    results, damaged = [], {}
    for run in runs:
        try:
            result = read_result(run)
        except ResultError as error:
            damaged[run] = error
        else:
            if result is not None:
                results.append(result)
    return results, damaged


def read_result(run: Run) -> Result | None:
    """Read the result of a run; None: it is not finished.

    Raises:
        ResultError: one of its files is damaged.
    """
    fit_file, validation_file = (step.folder / "results.json" for step in (run.fit, run.validate))
    fit, validation = read_json(fit_file), read_json(validation_file)
    checkpoint = best_checkpoint(run)
    if not fit or not validation.get("finished") or not checkpoint.is_file():
        return None
    with _damage_of(fit_file):
        fit = _checked_record(fit)
    with _damage_of(validation_file):
        validation = _checked_record(validation)
        scores = _checked_scores(dict(validation["final"]))
    metrics_file = run.fit.folder / "metrics.csv"
    with _damage_of(metrics_file):
        metrics = read_metrics(metrics_file)
    parameters = fit.get("parameters")
    if parameters is None:  # of a run that was made before results.json had them
        with _damage_of(checkpoint):
            net = deeplab_lit.load(checkpoint)
        parameters = sum(p.numel() for p in net.parameters() if p.requires_grad)
    images_file = run.validate.folder / "images.npz"
    with _damage_of(images_file):
        images = _read_counts(images_file, len(scores["iou"])) if images_file.is_file() else {}
    speeds = [value for _, value in metrics.get("train/images_per_second", [])]
    return Result(
        run=run,
        scores=scores,
        fit=fit,
        curve=metrics.get("val/miou", []),
        images_per_second=statistics.median(speeds) if speeds else None,
        parameters=parameters,
        images=images,
        validation=validation,
    )


def best_checkpoint(run: Run) -> Path:
    """Return the file of the training's best weights."""
    return run.fit.folder / "checkpoints/best.ckpt"


def macs_of(training: Path) -> int | None:
    """Count the multiply-adds of a training crop through the network, at all its scales.

    Args:
        training: folder of a run of `fit`.

    Returns:
        None where its files do not tell: it read whole images of any size, or is damaged; or where
        a part of one's own cannot be counted without values.
    """
    try:
        config = yaml.safe_load((training / "config.yaml").read_text("utf-8"))
        loader = config["loader"]
        crop = loader["crop_size"]
        size = loader.get("resize") if crop == "whole" else crop
        size = (size, size) if isinstance(size, int) else size
        if size is None:
            return None
        return cost_of(deeplab_lit.load(training / "checkpoints/best.ckpt"), size).macs
    except (UserError, yaml.YAMLError, RuntimeError, *DAMAGE):
        return None


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    """Raise every error inside as the damage of this file."""
    try:
        yield
    except DAMAGE as error:
        words = repr(error) if isinstance(error, KeyError) else str(error)
        raise ResultError(words if str(path) in words else f"{path} is damaged: {words}") from error


def _checked_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a run with the entries that a report shows, each of its type."""
    seconds = float(record["wall_seconds"])
    if not seconds >= 0:
        raise ValueError(f"wall_seconds is {seconds}")
    entries = {
        "wall_seconds": seconds,
        "device": str(record["device"]),
        "versions": dict(record["versions"]),
        "git_commit": None,
    }
    for name, kind in (("steps", int), ("parameters", int), ("git_commit", str)):
        if record.get(name) is not None:
            entries[name] = kind(record[name])
    return record | entries


def _checked_scores(scores: dict[str, Any]) -> dict[str, Any]:
    """Refuse scores of which one is neither a fraction nor None."""
    for part in (scores, *([scores["crf"]] if "crf" in scores else [])):
        subsets = dict(part.get("subsets", {"iou": {}})["iou"])
        means = [part["miou"], *(part[f"miou{name}"] for name in subsets)]
        values = [value for iou in (part["iou"], *subsets.values()) for value in dict(iou).values()]
        for value in (*means, *values):
            if value is not None and not 0 <= value <= 1 and not math.isnan(value):
                raise ValueError(f"a score is {value}")
    return scores


def _read_counts(path: Path, num_classes: int) -> dict[str, np.ndarray]:
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


def read_json(path: Path) -> dict[str, Any]:
    """Read a record; empty: there is none yet, or a damaged one."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def is_finished(step: Step) -> bool:
    """Return whether a step has written its last result, in this call or an earlier one."""
    return bool(read_json(step.folder / "results.json").get("finished"))


def is_done(run: Run) -> bool:
    """Return whether a run was trained and scored, in this call or an earlier one."""
    return is_finished(run.fit) and is_finished(run.validate)


def progress(folder: Path) -> tuple[int, int, float | None]:
    """Read how far a training is: steps done, steps in all (0: unknown), latest mIoU."""
    done, miou, total = 0, None, 0
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                done = int(row["step"]) + 1
                miou = float(row["val/miou"]) if row.get("val/miou") else miou
        config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
        total = max(int(config["trainer"]["max_steps"]), 0)
    except (OSError, ValueError, KeyError, TypeError, csv.Error, yaml.YAMLError):  # not written yet
        pass
    return done, total, miou


def share_done(step: Step) -> float:
    """Return how much of a training is done, 0…1; 0 for a validation, which does not tell."""
    done, total, _ = progress(step.folder) if step.verb == "fit" else (0, 0, None)
    return min(done / total, 1.0) if total else 0.0


def _number(value: float | None) -> float:
    return math.nan if value is None else value
