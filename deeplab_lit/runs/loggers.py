"""Where a run's numbers go: metrics.csv always, and Weights & Biases whenever it is installed."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit.cli.screen import say
from deeplab_lit.runs.csv_logger import MetricsFile
from deeplab_lit.runs.wandb_logger import HarmlessWandb, may_fail

PROJECT = "deeplab_lit"
BEST = ("val/miou", "val_crf/miou")  # metrics of which a run's highest value counts
RUN_FOLDER = "RUN_FOLDER"  # as a logger's save_dir: the folder of the run
IN_FOLDER = ("TensorBoardLogger", "CSVLogger", "WandbLogger")
LONGEST_ID = 100  # W&B allows 128 to names that it makes of the id, of tables for example


def build_loggers(
    folder: Path, *, experiment: str, job_type: str, resume_step: int | None, wandb: bool = True
) -> list[Logger]:
    """The loggers of a run; nothing is written or sent before training starts.

    W&B is online when the user is logged in and the server answers, offline otherwise (`wandb sync`
    sends it later), and what WANDB_MODE says where that is set.

    Args:
        folder: the run folder.
        experiment: W&B's group.
        job_type: W&B's job type, "fit" or "validate".
        resume_step: optimizer step from which a run goes on in its folder; null for a new run.
        wandb: W&B beside metrics.csv.
    """
    loggers: list[Logger] = [MetricsFile(folder, resume_step)]
    if not wandb:
        return loggers
    try:
        import wandb
    except ImportError:
        say("wandb is not installed: this run is logged to metrics.csv only")
        return loggers
    if not _has_cache():  # W&B's process would write its log on the screen
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb"))
    asked = os.environ.get("WANDB_MODE")  # W&B reads it itself
    mode = _mode() if asked is None else None
    loggers.append(
        HarmlessWandb(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=experiment,
            name=folder.name,
            id=run_id(experiment, folder.name),
            job_type=job_type,
            save_dir=folder,
            mode=mode,
            settings=_settings(asked or mode),
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


def with_save_dir(argv: list[str]) -> list[str]:
    """The command line with `RUN_FOLDER` behind every logger that writes files.

    A save_dir that is given later on it wins.
    """
    found, before = [], ""
    for word in argv:
        found.append(word)
        flag, _, name = word.partition("=") if "=" in word else (before, "", word)
        if flag in ("--trainer.logger", "--trainer.logger+") and name.endswith(IN_FOLDER):
            found.append(f"--trainer.logger.save_dir={RUN_FOLDER}")
        before = word
    return found


def put_save_dir(loggers: Any, old: str, new: str) -> None:
    """Change where loggers write that write to `old`.

    Args:
        loggers: `trainer.logger` of a parsed configuration: one logger, a list of them, or others.
        old: their save_dir.
        new: instead.
    """
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, Namespace) and logger.get("init_args.save_dir") == old:
            logger.init_args.save_dir = new


def run_id(experiment: str, name: str) -> str:
    """W&B's id of a run: what W&B names after it may have 128 characters."""
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
    """How much W&B says on the screen: what the user has set; else little online, and nothing else.

    Its errors are raised, and said by HarmlessWandb. What is left out is in its files in the run
    folder, and where they are is said by `end_wandb`.
    """
    if {"WANDB_SILENT", "WANDB_QUIET"} & os.environ.keys():
        return {}
    return {"quiet": True} if mode == "online" else {"silent": True}


def end_wandb(loggers: list[Logger]) -> str:
    """End W&B's run, before the results are shown: what it says then stands above them.

    Returns:
        Where the run is, as HarmlessWandb.place; nothing where there is none.
    """
    place = ""
    for logger in loggers:
        if isinstance(logger, HarmlessWandb):
            place = logger.place()
            logger.end()
    return place


def log_config(loggers: list[Logger], config: dict[str, Any]) -> None:
    """The nested configuration to every logger; on W&B, the best mIoU as a run's summary."""
    for logger in loggers:
        logger.log_hyperparams(config)
        if isinstance(logger, WandbLogger):
            with may_fail(logger):
                for metric in BEST:
                    logger.experiment.define_metric(metric, summary="max")


@rank_zero_only
def log_checkpoint(loggers: list[Logger], path: Path) -> None:
    """A checkpoint as an artifact of the W&B run, named after it; uploaded when that is synced.

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
