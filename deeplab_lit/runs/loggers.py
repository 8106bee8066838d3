"""Loggers of a run's numbers: metrics.csv always, and Weights & Biases whenever it is installed.

W&B is something that a training can do without: its first failure ends the logging to it, and no
more.
"""

import atexit
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit.runs.csv_logger import MetricsFile
from deeplab_lit.text import say

PROJECT = "deeplab_lit"
# metrics of which a run's highest value counts; with * those of subsets of the classes
BEST = ("val/miou", "val_crf/miou", "val/miou*", "val_crf/miou*")
LONGEST_ID = 100  # W&B allows 128 to names that it makes of the id, of tables for example


def build_loggers(
    folder: Path, *, experiment: str, job_type: str, resume_step: int | None, wandb: bool = True
) -> list[Logger]:
    """Build the loggers of a run; nothing is written or sent before training starts.

    W&B is online when the user is logged in and the server answers, offline otherwise (`wandb sync`
    sends it later), and what WANDB_MODE says where that is set.

    Args:
        folder: the run folder.
        experiment: W&B's group.
        job_type: W&B's job type, "fit" or "validate".
        resume_step: optimizer step from which a run goes on in its folder; None for a new run.
        wandb: W&B beside metrics.csv.
    """
    loggers: list[Logger] = [MetricsFile(folder, resume_step)]
    if not wandb:
        return loggers
    try:
        import_module("wandb")
    except ImportError:
        say("wandb is not installed: this run is logged to metrics.csv only")
        return loggers
    if not _has_cache():  # W&B's process would write its log on the screen
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb"))
    mode_of_user = os.environ.get("WANDB_MODE")  # W&B reads it itself
    mode = _mode() if mode_of_user is None else None
    loggers.append(
        HarmlessWandb(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=experiment,
            name=folder.name,
            id=run_id(experiment, folder.name),
            job_type=job_type,
            save_dir=folder,
            mode=mode,
            settings=_settings(mode_of_user or mode),
        )
    )
    return loggers


def _has_cache() -> bool:
    """Return whether the user's cache folder is there or can be made; it cannot without a HOME."""
    home = os.environ.get("HOME")
    folder = os.environ.get("XDG_CACHE_HOME") or (home and f"{home}/.cache")
    if not folder:
        return False
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def run_id(experiment: str, name: str) -> str:
    """Return W&B's id of a run: what W&B names after it may have 128 characters."""
    id = re.sub(r"[^\w.-]", "-", f"{experiment}-{name}")
    if len(id) <= LONGEST_ID:
        return id
    return f"{id[: LONGEST_ID - 9]}-{hashlib.sha256(id.encode()).hexdigest()[:8]}"


@rank_zero_only
def _mode() -> str:
    import wandb

    try:
        return "online" if wandb.login(prompt=False) else "offline"
    except Exception as error:  # a wrong key, address or file of W&B's is no reason not to train
        say(f"WARNING: W&B cannot be reached, so this run is logged offline ({error})")
        return "offline"


def _settings(mode: str | None) -> dict[str, bool]:
    """Return how much W&B says on the screen: as the user has set, else little.

    Its errors are raised, and reported by HarmlessWandb. What is left out is in its files in the
    run folder; `end_wandb` returns where they are.
    """
    if {"WANDB_SILENT", "WANDB_QUIET"} & os.environ.keys():
        return {}
    return {"quiet": True} if mode == "online" else {"silent": True}


def end_wandb(loggers: list[Logger]) -> str:
    """End W&B's run, before the results are shown: what it says then stands above them.

    Returns:
        Where the run is, as HarmlessWandb.place; empty where there is none.
    """
    place = ""
    for logger in loggers:
        if isinstance(logger, HarmlessWandb):
            place = logger.place()
            logger.end()
    return place


def log_config(loggers: list[Logger], config: dict[str, Any]) -> None:
    """Log a nested configuration to every logger; on W&B, make the best mIoU the run's summary."""
    for logger in loggers:
        logger.log_hyperparams(config)
        if isinstance(logger, WandbLogger):
            with may_fail(logger):
                for metric in BEST:
                    logger.experiment.define_metric(metric, summary="max")


@rank_zero_only
def log_checkpoint(loggers: list[Logger], path: Path) -> None:
    """Log a checkpoint as an artifact of the W&B run, named after it; uploaded when it is synced.

    Args:
        loggers: of the run.
        path: of the checkpoint; it stays where it is.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            with may_fail(logger):
                artifact = wandb.Artifact(f"{logger.experiment.id}-{path.stem}", type="model")
                artifact.add_file(str(path))
                logger.experiment.log_artifact(artifact, aliases=[path.stem])


@contextmanager
def may_fail(logger: Any) -> Iterator[None]:
    """Report W&B's first exception once, note it in the logger's `failed`, and carry on."""
    try:
        yield
    except Exception as error:  # any: its process, its server, its settings, its disk
        if not getattr(logger, "failed", False):
            logger.failed = True
            atexit.register(_part)
            say(
                "WARNING: W&B has failed and gets no more of this run; metrics.csv goes on "
                f"({type(error).__name__}: {' '.join(str(error).split())})"
            )


def _part() -> None:
    """End W&B with the process, without a traceback where W&B's own process is dead."""
    import wandb

    with suppress(Exception, SystemExit):
        wandb.teardown()


def _harmless(method: Callable) -> Callable:
    @functools.wraps(method)
    def attempt(self: "HarmlessWandb", *args: Any, **kwargs: Any) -> Any:
        if self.failed:
            return None
        with may_fail(self):
            return method(self, *args, **kwargs)
        return None

    return attempt


class HarmlessWandb(WandbLogger):
    """Lightning's WandbLogger, but the first failure is reported and ends the logging to W&B only.

    Attributes:
        failed: W&B gets no more of this run.
        joined: W&B had a run in this process before this logger, which the logger goes on with.
    """

    failed = False
    log_hyperparams = _harmless(WandbLogger.log_hyperparams)
    log_metrics = _harmless(WandbLogger.log_metrics)
    log_table = _harmless(WandbLogger.log_table)
    log_image = _harmless(WandbLogger.log_image)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        import wandb

        super().__init__(*args, **kwargs)
        self._wandb_init.pop("anonymous", None)  # W&B warns of it, and Lightning always gives it
        self.joined = wandb.run is not None

    def finalize(self, status: str) -> None:
        """End W&B's run where the training has failed or was interrupted."""
        super().finalize(status)
        if status != "success":
            self.end(exit_code=1)

    @_harmless
    def end(self, exit_code: int = 0) -> None:
        """End W&B's run, so that the next in this process has its own; not one that it joined."""
        import wandb

        if wandb.run is not None and not self.joined:
            wandb.finish(exit_code)

    def place(self) -> str:
        """Return where W&B has its run: an address, or the folder of an offline one.

        Returns:
            Empty where it has none of this logger's.
        """
        import wandb

        run = wandb.run
        if run is None or self.joined or self.failed or run.disabled:
            return ""
        return run.sync_dir if run.offline else run.url or ""

    @property
    def experiment(self) -> Any:
        """Return W&B's run; after a failure an object that takes every call and does nothing."""
        run = self._run()
        return DummyLogger().experiment if run is None else run

    @_harmless
    def _run(self) -> Any:
        return super().experiment
