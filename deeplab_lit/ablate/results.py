"""What the runs of an ablation left: scores, counts of every image, curves, time."""

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import deeplab_lit
from deeplab_lit.ablate.plan import Trial


@dataclass(frozen=True)
class Result:
    """A trial that is done. Scores are fractions in 0…1.

    Attributes:
        trial: which.
        scores: of the validation, as results.json holds them; with "crf" those after the CRF.
        fit: results.json of the training.
        curve: (optimizer step, mIoU) of each validation during training.
        images_per_second: median over the training; null if it was too short to be measured.
        parameters: learnable ones of the network.
        images: images.npz of the validation: ids, counts, counts_crf; empty if there is none.
    """

    trial: Trial
    scores: dict[str, Any]
    fit: dict[str, Any]
    curve: list[tuple[int, float]]
    images_per_second: float | None
    parameters: int
    images: dict[str, np.ndarray]

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


def read_results(trials: Sequence[Trial]) -> list[Result]:
    """Of all trials that are done; the others are left out."""
    return [result for trial in trials if (result := _read(trial)) is not None]


def _read(trial: Trial) -> Result | None:
    fit = read_json(trial.fit.folder / "results.json")
    validation = read_json(trial.validate.folder / "results.json")
    checkpoint = trial.fit.folder / "checkpoints/best.ckpt"
    if not fit or not validation.get("finished") or not checkpoint.is_file():
        return None
    columns = read_metrics(trial.fit.folder / "metrics.csv")
    speeds = [value for _, value in columns.get("train/images_per_second", [])]
    net = deeplab_lit.load(checkpoint)
    images = trial.validate.folder / "images.npz"
    return Result(
        trial=trial,
        scores=validation["final"],
        fit=fit,
        curve=columns.get("val/miou", []),
        images_per_second=statistics.median(speeds) if speeds else None,
        parameters=sum(p.numel() for p in net.parameters() if p.requires_grad),
        images=dict(np.load(images)) if images.is_file() else {},
    )


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
    except (OSError, ValueError, TypeError):
        return {}


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
