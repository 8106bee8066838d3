"""The callbacks that every run has, in the order in which they need each other."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from deeplab_lit.crf import Refiner
from deeplab_lit.runs.record import RunRecord
from deeplab_lit.scoring.cityscapes import CityscapesScores, Instances
from deeplab_lit.scoring.crf_scores import CRFScores
from deeplab_lit.scoring.evaluation import Evaluation
from deeplab_lit.scoring.per_image import ImageScores
from deeplab_lit.scoring.sample_pictures import SamplePictures
from deeplab_lit.scoring.score_charts import ScoreCharts
from deeplab_lit.scoring.trimap import BandCurve
from deeplab_lit.scoring.worst_best import WorstAndBest
from deeplab_lit.training.save_on_signal import SaveOnSignal
from deeplab_lit.training.step_progress import StepProgress
from deeplab_lit.training.step_seed import StepSeed
from deeplab_lit.training.throughput import Throughput


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
) -> tuple[RunRecord, list[Callback]]:
    """The callbacks of a run.

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

    Returns:
        The one that writes results.json; and all of them, it included.
    """
    refining = [CRFScores(crf)] if crf is not None else []
    about_crf = refining[0] if refining else None
    benchmark = [CityscapesScores(instances, about_crf)] if instances else []
    best = {"monitor": monitor, "mode": mode}
    record = RunRecord(folder, about, about_crf, *benchmark, resumes=resumes, **best)
    seeing: list[Callback] = [SamplePictures(folder)]  # each image, before and after the CRF
    waiting: list[Callback] = []  # for the CRF's last image
    if verb == "validate":
        seeing += [ImageScores(folder), WorstAndBest(folder)]
        waiting.append(ScoreCharts(folder, about_crf))
        if evaluation.band:
            waiting.append(BandCurve(folder, evaluation.band, crf=crf is not None))
    callbacks = [*benchmark, record, *seeing, *refining, *waiting]
    if about_crf is not None:
        about_crf.see = tuple(x.see_refined for x in callbacks if hasattr(x, "see_refined"))
    if progress:
        callbacks.append(StepProgress())
    if verb == "fit":
        callbacks += [StepSeed(), Throughput(), SaveOnSignal()]
    return record, callbacks
