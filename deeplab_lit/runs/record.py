"""The record of a run: results.json."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.runs.checkpoints import kept_by
from deeplab_lit.runs.environment import device_name, git_commit, versions
from deeplab_lit.runs.redact import redacted_words
from deeplab_lit.scoring.cityscapes import CityscapesScores
from deeplab_lit.scoring.crf_scores import CRFScores
from deeplab_lit.scoring.metric import Scores


class RunRecord(Callback):
    """Keeps the best and the latest scores of a run and writes them to results.json.

    The file is written after every validation, so an interrupted run has one too; `finished` tells.
    The best is the one that best.ckpt is of. Scores and time go on where a resumed run's
    checkpoint stood.

    Args:
        folder: the run folder.
        about: further entries.
        crf: the callback that scores after the CRF, if there is one.
        benchmark: the callback that scores as Cityscapes does, if there is one.
        resumes: the run goes on in its folder; a new one may begin with a checkpoint of another.
        monitor: the metric that says which validation is the best.
        mode: "max": the higher the better; "min": the lower.
    """

    def __init__(
        self,
        folder: Path,
        about: dict[str, Any],
        crf: CRFScores | None = None,
        benchmark: CityscapesScores | None = None,
        *,
        resumes: bool = False,
        monitor: str = "val/miou",
        mode: str = "max",
    ) -> None:
        self.folder = folder
        self.about = about
        self.crf = crf
        self.benchmark = benchmark
        self.resumes = resumes
        self.monitor = monitor
        self.mode = mode
        self.best: dict[str, Any] | None = None
        self.best_score = -math.inf  # the higher the better, whatever the mode
        self.final: dict[str, Any] | None = None
        self.images = 0  # of a validation, on this process
        self.images_in_split = 0
        self.parameters: int | None = None  # learnable ones of the network
        self.seconds_before = 0.0
        self.start = time.monotonic()

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
        self.parameters = sum(p.numel() for p in pl_module.net.parameters() if p.requires_grad)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self.images = 0
        self.images_in_split = len(trainer.val_dataloaders.dataset)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the images."""
        self.images += len(batch["id"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the scores of the validation that has just ended."""
        if trainer.sanity_checking:
            return
        classes = list(pl_module.hparams.classes)
        images = torch.tensor(self.images, device=trainer.strategy.root_device)
        self.final = {
            "step": trainer.global_step,
            "images": int(trainer.strategy.reduce(images, reduce_op="sum")),
            "images_in_split": self.images_in_split,
            **as_dict(pl_module.scores, classes),
        }
        if self.crf is not None:
            self.final["crf"] = self.crf.results | as_dict(self.crf.scores, classes)
        if self.benchmark is not None:
            self.final["cityscapes"] = self.benchmark.results
        score = self._score(trainer)
        if self.best is None or score > self.best_score:
            self.best, self.best_score = self.final, score
        self._write(trainer, finished=trainer.state.fn == "validate")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file for the last time."""
        self._write(trainer, finished=True)

    def _score(self, trainer: Trainer) -> float:
        """The score to compare with others, to the bit that of which the checkpoint decides."""
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


def as_dict(scores: Scores, classes: list[str]) -> dict[str, Any]:
    """Scores for JSON: plain numbers, null for a class without IoU."""
    return {
        "miou": _number(scores.miou),
        "classes_in_miou": int((~scores.iou.isnan()).sum()),
        "pixel_accuracy": _number(scores.pixel_accuracy),
        "mean_accuracy": _number(scores.mean_accuracy),
        "fw_iou": _number(scores.fw_iou),
        **({} if scores.loss is None else {"loss": _number(scores.loss)}),
        "iou": dict(zip(classes, map(_number, scores.iou.tolist()), strict=True)),
    }


def _rank(scores: dict[str, Any]) -> float:
    return -1.0 if scores["miou"] is None else scores["miou"]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
