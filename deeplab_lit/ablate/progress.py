"""How far a step is, from the files that its run has written so far."""

import csv
from pathlib import Path

import yaml

from deeplab_lit.ablate.plan import Step
from deeplab_lit.ablate.results import read_json


def is_finished(step: Step) -> bool:
    """Whether the run has written its last result, now or in an earlier call."""
    return bool(read_json(step.folder / "results.json").get("finished"))


def progress(folder: Path) -> tuple[int, int, float | None]:
    """How far a training is: optimizer steps done, steps in all (0: unknown), latest mIoU."""
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
    """How much of a training is done, 0…1; nothing is known of a validation."""
    done, total, _ = progress(step.folder) if step.verb == "fit" else (0, 0, None)
    return min(done / total, 1.0) if total else 0.0
