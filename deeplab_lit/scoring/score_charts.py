"""The scores of a validation as charts in the run folder."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from deeplab_lit.pictures.charts import class_bars, confusion_matrix
from deeplab_lit.scoring.crf_scores import CRFScores


class ScoreCharts(Callback):
    """Writes classes.png, the IoU of each class, and confusion.png, what was taken for what.

    With the CRF, classes.png shows both scores, and confusion_crf.png is the matrix after it.

    Args:
        folder: the run folder.
        crf: the callback that scores after the CRF, if there is one.
    """

    def __init__(self, folder: Path, crf: CRFScores | None = None) -> None:
        self.folder = folder
        self.crf = crf

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw; on the first process only."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        names = list(pl_module.hparams.classes)
        scores = {"network": pl_module.scores}
        if self.crf is not None:
            scores["after the CRF"] = self.crf.scores
            confusion_matrix(self.crf.scores.confusion, names, self.folder / "confusion_crf.png")
        confusion_matrix(pl_module.scores.confusion, names, self.folder / "confusion.png")
        bars = {label: each.iou.tolist() for label, each in scores.items()}
        class_bars(bars, names, self.folder / "classes.png")
