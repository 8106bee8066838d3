"""The callbacks that every run has; and all that a trainer needs to keep a run in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit import __version__
from deeplab_lit.cli.run import CHECKPOINT
from deeplab_lit.crf import Refiner
from deeplab_lit.runs.checkpoints import AtomicCheckpointIO, BestAndLast
from deeplab_lit.runs.folder import create_run_folder
from deeplab_lit.runs.loggers import build_loggers
from deeplab_lit.runs.record import RunRecord
from deeplab_lit.scoring.cityscapes import CityscapesScores, Instances
from deeplab_lit.scoring.evaluation import Evaluation
from deeplab_lit.scoring.galleries import SamplePictures, ScoreCharts, WorstAndBest
from deeplab_lit.scoring.observer import Observer
from deeplab_lit.scoring.per_image import ImageScores
from deeplab_lit.scoring.trimap import Trimap
from deeplab_lit.scoring.validation import Validation
from deeplab_lit.training.progress import StepProgress, Throughput
from deeplab_lit.training.resumption import SaveOnSignal, StepSeed


def build_callbacks(
    verb: str,
    folder: Path,
    about: dict[str, Any],
    *,
    evaluation: Evaluation,
    crf: Refiner | None,
    progress: bool,
    instances: Instances | None = None,
    resumes: bool = False,
    monitor: str = "val/miou",
    mode: str = "max",
    metrics: Sequence[Observer] = (),
) -> tuple[RunRecord, list[Callback]]:
    """Build the callbacks of a run; their order does not matter.

    Args:
        verb: "fit" or "validate".
        folder: of the run.
        about: further entries of results.json.
        evaluation: as on the command line.
        crf: refines each image, to be scored a second time; None: no CRF.
        progress: whether to show a progress bar.
        instances: of Cityscapes, for validate.
        resumes: the run goes on in a folder that it already has.
        monitor: the metric that says which validation is the best.
        mode: "max": the higher the better; "min": the lower.
        metrics: of the user.

    Returns:
        The one that writes results.json; and all of them, it included.
    """
    record = RunRecord(folder, about, resumes=resumes, monitor=monitor, mode=mode)
    observers: list[Observer] = [SamplePictures(folder), *metrics]
    if verb == "validate":
        observers += [ImageScores(folder), WorstAndBest(folder), ScoreCharts(folder)]
        if instances is not None:
            observers.append(CityscapesScores(instances))
        if evaluation.trimap:
            observers.append(Trimap(folder, evaluation.trimap))
    callbacks: list[Callback] = [record, Validation(observers, crf, record.take)]
    if progress:
        callbacks.append(StepProgress())
    if verb == "fit":
        callbacks += [StepSeed(), Throughput(), SaveOnSignal()]
    return record, callbacks


def in_run_folder(
    folder: str | Path,
    *,
    crf: Refiner | None = None,
    metrics: Sequence[Observer] = (),
    wandb: bool = True,
) -> dict[str, Any]:
    """Return arguments of a Trainer that keep a training in a folder, as `fit` does it.

    `Trainer(max_steps=1000, **in_run_folder("runs/mine/one"))` writes checkpoints, metrics.csv,
    results.json and predictions.png, and logs to W&B. What `fit` does beside that is left to you:
    config.yaml; the seed (`seed_everything`); the checks of options, data and free disk space
    before the first step; the warning of validation images that are trained on; the lock that
    keeps another process out of the folder; and how often to validate. A Trainer validates once an
    epoch: give it `val_check_interval=100, check_val_every_n_epoch=None` for every 100 batches.

    Args:
        folder: of the run, runs/<experiment>/<run>; it does not exist yet.
        crf: refines each validation image, to be scored a second time; None: no CRF.
        metrics: of yours.
        wandb: whether to log to W&B too.

    Raises:
        RunFolderError: the folder is taken, or cannot be written to.
    """
    folder = Path(folder)
    rank_zero_only(create_run_folder)(folder, 0)  # further processes of this training find it there
    _, callbacks = build_callbacks(
        "fit",
        folder,
        {"deeplab_lit": __version__},
        evaluation=Evaluation(),
        crf=crf,
        progress=True,
        metrics=metrics,
    )
    experiment = folder.absolute().parent.name
    loggers = build_loggers(
        folder, experiment=experiment, job_type="fit", resume_step=None, wandb=wandb
    )
    checkpoints = BestAndLast(folder / "checkpoints", **CHECKPOINT)
    return {
        "callbacks": [*callbacks, checkpoints],
        "logger": loggers,
        "plugins": [AtomicCheckpointIO()],
        "enable_model_summary": False,
    }
