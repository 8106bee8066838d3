"""The record of a run: results.json, with what it ran on and with."""

import json
import math
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from deeplab_lit.atomic import atomic_write
from deeplab_lit.runs.checkpoints import kept_by
from deeplab_lit.scoring.observer import Results
from deeplab_lit.text import redacted_words

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "numpy", "opencv-python-headless")


class RunRecord(Callback):
    """Keep the best and the latest scores of a run and write them to results.json.

    The file is written after every validation, so an interrupted run has one too; `finished` tells.
    The best is the one that best.ckpt is of. Scores and time go on where a resumed run's
    checkpoint stood.

    Args:
        folder: the run folder.
        about: further entries; `add` adds more.
        resumes: the run goes on in its folder; a new one may begin with a checkpoint of another.
        monitor: the metric that says which validation is the best.
        mode: "max": the higher the better; "min": the lower.

    Attributes:
        best: the best validation, as results.json has it; None before the first.
        final: the latest.
    """

    def __init__(
        self,
        folder: Path,
        about: dict[str, Any],
        *,
        resumes: bool = False,
        monitor: str = "val/miou",
        mode: str = "max",
    ) -> None:
        self.folder = folder
        self.about = dict(about)
        self.resumes = resumes
        self.monitor = monitor
        self.mode = mode
        self.best: dict[str, Any] | None = None
        self.best_score = -math.inf  # the higher the better, whatever the mode
        self.final: dict[str, Any] | None = None
        self.parameters: int | None = None  # learnable ones of the network; None without one
        self.seconds_before = 0.0
        self.start = time.monotonic()

    def add(self, **entries: Any) -> None:
        """Add entries to results.json, of the run as a whole."""
        self.about |= entries

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; plain numbers and strings."""
        kept = {"monitor": self.monitor, "mode": self.mode, "best_score": self.best_score}
        return kept | {"best": self.best, "final": self.final, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a resumed run begins with: it may have nothing left to do but to write.

        A new run, in a folder of its own, begins with nothing, and so does the search for the best
        by another metric.
        """
        if not self.resumes:
            return
        self.final = state_dict.get("final")
        self.seconds_before = state_dict["seconds"]
        searched = state_dict.get("monitor", "val/miou"), state_dict.get("mode", "max")
        if searched == (self.monitor, self.mode):
            self.best = state_dict["best"]
            if self.best is not None:  # of runs begun before it was kept: as metrics are
                kept = torch.tensor(_rank(self.best)).item()
                self.best_score = state_dict.get("best_score", kept)

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.start

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock, and count the network's learnable parameters."""
        self.start = time.monotonic()
        net: Any = getattr(pl_module, "net", None)
        if net is not None:
            self.parameters = sum(p.numel() for p in net.parameters() if p.requires_grad)

    def take(self, trainer: Trainer, results: Results) -> None:
        """Take the results of a validation and write the file; on every process."""
        self.final = {"step": trainer.global_step, **results.as_dict()}
        score = self._score(trainer)
        if self.best is None or score > self.best_score:
            self.best, self.best_score = self.final, score
        self._write(trainer, finished=trainer.state.fn == "validate")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file for the last time."""
        self._write(trainer, finished=True)

    def _score(self, trainer: Trainer) -> float:
        """Return the score that is compared, to the bit the one by which the checkpoint decides."""
        score = float(trainer.callback_metrics.get(self.monitor, math.nan))
        score = score if self.mode == "max" else -score
        return -math.inf if math.isnan(score) else score

    def _write(self, trainer: Trainer, *, finished: bool) -> None:
        if not trainer.is_global_zero or self.final is None:
            return
        checkpoints = kept_by(trainer)
        results = {
            "finished": finished,
            "best": self.best,
            "final": self.final,
            "steps": trainer.global_step,
            "wall_seconds": round(self._seconds(), 1),
            "best_checkpoint": checkpoints.best_model_path if checkpoints and finished else None,
            "parameters": self.parameters,
            "processes": trainer.world_size,
            "device": device_name(trainer),
            "versions": versions(),
            "git_commit": git_commit(),
            "command": redacted_words(sys.argv),
            **self.about,
        }
        with atomic_write(self.folder / "results.json") as place:
            place.write_text(json.dumps(results, indent=2) + "\n")


def _rank(scores: dict[str, Any]) -> float:
    return -1.0 if scores["miou"] is None else scores["miou"]


def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that decide about results."""
    numbers = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.version.cuda:
        numbers["cuda"] = torch.version.cuda
    return numbers


def git_commit() -> str | None:
    """Return the commit of the source, "+" where it is changed; None where it is not known.

    A repository that the source merely lies in, as an environment inside somebody's project does,
    is another one. Of an installed package it is the commit that pip has noted.
    """
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "-uno")
    except (OSError, subprocess.SubprocessError):
        return _installed_commit()
    return commit + ("+" if changed else "")


def _installed_commit() -> str | None:
    """Return the commit that `pip install git+…` took this package from; None: it did not.

    Format: https://packaging.python.org/en/latest/specifications/direct-url/
    """
    here = Path(__file__)
    try:
        installed = distribution("deeplab_lit")
        if Path(str(installed.locate_file(f"deeplab_lit/runs/{here.name}"))) != here:
            return None  # this source is not the one that is installed
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, OSError, ValueError):
        return None
    return origin.get("vcs_info", {}).get("commit_id")


def _git(*command: str) -> str:
    words = ["git", "-C", str(Path(__file__).parent), *command]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def device_name(trainer: Trainer) -> str:
    """Return what the run ran on: the GPU's name, or the kind of device and its threads."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' * (threads > 1)}"
