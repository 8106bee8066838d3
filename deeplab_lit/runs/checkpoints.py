"""The checkpoints of a run, best.ckpt and last.ckpt, and the metrics by which one is the best."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from weakref import proxy

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from deeplab_lit.atomic import atomic_torch_save, atomic_write
from deeplab_lit.runs.csv_logger import MetricsFile
from deeplab_lit.scoring.metric import SCALARS

BEST, LAST = "best.ckpt", "last.ckpt"
SAVED_WHEN = (
    "best.ckpt and last.ckpt are written after each validation, so "
    "--trainer.val_check_interval says how often"
)
SUPPORTED = {  # argument: (what it may be beside None, why nothing else)
    "filename": (("best",), "the checkpoints of a run are called best.ckpt and last.ckpt"),
    "save_last": ((True,), "last.ckpt is always written, as a run goes on from it"),
    "save_top_k": (
        (0, 1),
        "a run keeps one best checkpoint (or none: 0), best.ckpt. More of them come from a "
        "callback beside it: --trainer.callbacks+=ModelCheckpoint "
        "--trainer.callbacks.monitor=val/miou --trainer.callbacks.mode=max "
        "--trainer.callbacks.save_top_k=3 --trainer.callbacks.filename='{step}'",
    ),
    "every_n_train_steps": ((0,), SAVED_WHEN),
    "train_time_interval": ((), SAVED_WHEN),
    "every_n_epochs": ((1,), SAVED_WHEN),
    "save_on_train_epoch_end": ((False,), SAVED_WHEN),
}
COUNTERS = ("epoch", "step")  # which ModelCheckpoint knows too
LOSSES = ("train/loss", "val/loss")  # best when low
SCORES = ("val/miou", "val/iou/", "val_crf/")  # best when high


def kept_by(trainer: Trainer) -> "BestAndLast | None":
    """Return the callback that writes best.ckpt and last.ckpt; others may be beside it."""
    callbacks = trainer.checkpoint_callbacks
    return next((each for each in callbacks if isinstance(each, BestAndLast)), None)


def is_fast_dev_run(trainer: Trainer) -> bool:
    """Tell whether a trainer only looks for mistakes, and writes nothing."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined] # set by a connector


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place and moves it there: whole or not at all.

    Lightning's own goes through the system's folder for temporary files, which may be full while
    this disk is not, or lie on another disk, from where a file does not arrive in one step.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write `checkpoint`; what stood at `path` stays until the new file is complete."""
        atomic_torch_save(checkpoint, Path(path))


class BestAndLast(ModelCheckpoint):
    """Write best.ckpt and last.ckpt after every validation, and last.ckpt when training ends.

    best.ckpt is the validation with the best score so far, as results.json has it; a run goes on
    from last.ckpt. Lightning's own would save at other moments too, with the score of an earlier
    validation, and its save_last only where the best has just been written.

    The arguments are Lightning's. Those that would give other files or moments are refused.

    Raises:
        MisconfigurationException: says which argument, and what there is instead.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (allowed, reason) in SUPPORTED.items():
            if kwargs.get(name) not in (None, *allowed):
                raise MisconfigurationException(
                    f"--checkpoint.{name} is {kwargs[name]}: {reason}. Leave the option out"
                )
        if self.monitor is None:
            raise MisconfigurationException(
                "--checkpoint.monitor is null: the best checkpoint needs a metric, as val/miou"
            )
        self.best_step: int | None = None
        self.begun = -1  # steps done when the last batch came
        self.waiting = False  # a validation has ended, and its checkpoints are not yet written
        self.goes_on = False  # in the folder of the checkpoint that was loaded

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Note where the next step begins."""
        self.begun = trainer.global_step

    def on_train_batch_end(self, *args: Any) -> None:
        """Write nothing: checkpoints are written after validations."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write both; where EarlyStopping looks at the validation only later, after that."""
        if (
            trainer.state.fn == "fit"
            and not trainer.sanity_checking
            and not is_fast_dev_run(trainer)
        ):
            if trainer.early_stopping_callback is not None and trainer.is_last_batch:
                self.waiting = True
            else:
                self._write(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what has waited."""
        if self.waiting:
            self.waiting = False
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write last.ckpt, for training that ends between two validations."""
        if not is_fast_dev_run(trainer):
            self.save_as_last(trainer)

    def on_exception(self, *args: Any) -> None:
        """Write nothing: `SaveOnSignal` knows whether the state is sound."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write metrics.csv first: a run that goes on from here has all rows up to here."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.write()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make best.ckpt from a last.ckpt that is the best, if the process was killed between."""
        path = Path(str(trainer.ckpt_path))
        self.goes_on = path.parent.resolve() == Path(self.dirpath or ".").resolve()
        known = checkpoint["callbacks"].get(self.state_key, {})
        is_best = known.get("best_step") == checkpoint["global_step"] and self.save_top_k
        if self.goes_on and path.name == LAST and is_best and trainer.is_global_zero:
            with atomic_write(path.with_name(BEST)) as place:
                shutil.copyfile(path, place)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the parent's, and the step of the best validation."""
        return super().state_dict() | {"best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a run that goes on knows of its best, wherever its folder lies by now.

        A run in another folder, which only starts from that checkpoint, begins with nothing.
        """
        if not self.goes_on or not state_dict["best_model_path"]:
            return
        here = Path(self.dirpath or ".")
        path = str(here / Path(state_dict["best_model_path"]).name)
        score = state_dict["best_model_score"]
        known = {"best_model_path": path, "kth_best_model_path": path, "kth_value": score}
        known |= {"best_k_models": {path: score}, "dirpath": self.dirpath}
        super().load_state_dict(state_dict | known)
        self.best_step = state_dict.get("best_step")

    def save_as_last(self, trainer: Trainer) -> Path:
        """Write last.ckpt; on all processes together.

        Returns:
            The file.
        """
        path = Path(self.dirpath or ".", LAST)
        self.last_model_path = str(path)
        self._save(trainer, path, weights_only=False)
        return path

    def _write(self, trainer: Trainer) -> None:
        """Write last.ckpt, then best.ckpt if this is the best validation.

        In this order, since a process can be killed between the two: the best checkpoint can be
        made from a last one that knows it is the best (`on_load_checkpoint`), not the reverse.
        In the middle of an optimizer step there is nothing to go on from: its gradients would be
        lost, and its first batches seen twice.
        """
        best = self._take_score(trainer)
        if trainer.global_step != self.begun:
            self.save_as_last(trainer)
        if best:
            self._save(trainer, Path(self.best_model_path), weights_only=self.save_weights_only)

    def _take_score(self, trainer: Trainer) -> bool:
        """Remember the score of the validation if it is the best; returns whether it is.

        Raises:
            MisconfigurationException: there is no such metric.
        """
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise MisconfigurationException(
                f"--checkpoint.monitor {self.monitor}: there is no such metric. Validations have "
                f"{', '.join(sorted(key for key in metrics if key.startswith('val')))}"
            )
        score = self.current_score = metrics[self.monitor]
        if not self.save_top_k or not self.check_monitor_top_k(trainer, score):
            return False
        if score.isnan():  # any number is better
            score = torch.full_like(score, -torch.inf if self.mode == "max" else torch.inf)
        self.best_model_path = self.kth_best_model_path = str(Path(self.dirpath or ".", BEST))
        self.best_k_models = {self.best_model_path: score}
        self.best_model_score = self.kth_value = self.current_score = score
        self.best_step = trainer.global_step
        return True

    def _save(self, trainer: Trainer, path: Path, *, weights_only: bool) -> None:
        trainer.save_checkpoint(path, weights_only)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))


def logged_names(classes: Iterable[str], *, crf: bool, subsets: Iterable[str] = ()) -> list[str]:
    """List the names of all that a run of ours logs in training and validation.

    Args:
        classes: names of the classes.
        crf: whether validations are scored after the CRF too.
        subsets: names of the subsets of classes that are scored too.
    """
    scores = [*SCALARS, *(f"miou{name}" for name in subsets)]
    scores += [f"iou/{name}" for name in classes]
    groups = ("backbone", "backbone.bias", "head.weight", "head.bias")  # training/optimizer.py
    names = ["train/loss", *(f"lr/{group}" for group in groups), "val/loss"]
    names += [f"{prefix}/{score}" for prefix in ("val", "val_crf")[: 1 + crf] for score in scores]
    return names


def all_known(callbacks: Iterable[Callback]) -> bool:
    """Tell whether no callback may log what `logged_names` does not know."""
    return all(
        isinstance(callback, EarlyStopping | ModelCheckpoint)
        or type(callback).__module__.startswith("deeplab_lit.")
        for callback in callbacks
    )


def check_monitors(callbacks: Iterable[Callback], names: Iterable[str]) -> None:
    """Refuse callbacks that watch what is not there, or want a loss high; warn of a low score.

    Args:
        callbacks: of a trainer; those that may do without their metric are passed over.
        names: of the metrics that are there.

    Raises:
        MisconfigurationException: says which metric, and those that there are; or which mode.
    """
    names = list(names)
    for callback in callbacks:
        if not isinstance(callback, ModelCheckpoint | EarlyStopping):
            continue
        needs = isinstance(callback, ModelCheckpoint) or callback.strict
        if needs and callback.monitor not in (None, *names, *COUNTERS):
            raise MisconfigurationException(
                f"{_option(callback)} watches {callback.monitor}, which is not logged; "
                f"there are: {', '.join(names)}"
            )
        worst = f"{_option(callback)} watches {callback.monitor} with mode {callback.mode}, which "
        worst += "takes its worst value for the best: set mode"
        if callback.monitor in LOSSES and callback.mode == "max":
            raise MisconfigurationException(f"{worst} min")
        if str(callback.monitor).startswith(SCORES) and callback.mode == "min":
            rank_zero_warn(f"{worst} max, unless this is meant")


def _option(callback: Callback) -> str:
    """Return the option by which a callback is known, or its name."""
    ours = type(callback).__module__.startswith("deeplab_lit.")
    return "--checkpoint.monitor" if ours else type(callback).__name__
