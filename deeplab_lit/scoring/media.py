"""Make what W&B gets of a validation beside its numbers: images with their masks, and tables.

Letters: C classes · H×W image.
"""

from typing import NamedTuple

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger

from deeplab_lit.scoring.metric import Scores
from deeplab_lit.text import say
from deeplab_lit.types import VOID

IMAGE_TABLE = "val/image_scores"  # W&B's key of the table of images
MOST_ROWS = 10_000  # of a table; W&B cuts longer ones off


class Sample(NamedTuple):
    """An image that is shown.

    Attributes:
        id: its name in the data set.
        pictures: the image (H,W,3), and truth and predictions (H,W): the network's, and after
            the CRF; all uint8.
    """

    id: str
    pictures: list[np.ndarray]


def takers(trainer: Trainer) -> list[tuple[WandbLogger, int]]:
    """Return the loggers that send something to W&B, each with the step to log under."""
    step = max(trainer.global_step - 1, 0)
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    return [(logger, step) for logger in loggers if not logger.experiment.disabled]


def log_samples(logger: WandbLogger, samples: list[Sample], names: list[str], step: int) -> None:
    """Log images with their masks to W&B, all at the size of the largest.

    Args:
        logger: of the run.
        samples: images and masks.
        names: of the classes.
        step: under which they are logged.
    """
    labels = dict(enumerate(names)) | {VOID: "void"}
    height, width = np.max([sample.pictures[0].shape[:2] for sample in samples], axis=0).tolist()
    keys = ("truth", "prediction", "after_crf")
    masks = [
        {
            key: {"mask_data": _filled(mask, (height, width), VOID), "class_labels": labels}
            for key, mask in zip(keys, sample.pictures[1:], strict=False)
        }
        for sample in samples
    ]
    logger.log_image(
        "val/images",
        [_filled(sample.pictures[0], (height, width), 0) for sample in samples],
        step=step,
        caption=[sample.id for sample in samples],
        masks=masks,
    )


def log_score_tables(logger: WandbLogger, scores: Scores, names: list[str], step: int) -> None:
    """Log the IoU of each class and the confusion matrix to W&B as tables.

    Of a matrix of more than 10,000 cells those with the most pixels are logged.
    """
    rows: list[list] = [[name, iou] for name, iou in zip(names, scores.iou.tolist(), strict=True)]
    logger.log_table("val/iou_by_class", columns=["class", "iou"], data=rows, step=step)
    predictions = [*names, "void"]  # the last where files were scored that have such pixels
    cells: list[list] = [
        [names[true], predictions[predicted], pixels]
        for true, row in enumerate(scores.confusion.tolist())
        for predicted, pixels in enumerate(row)
    ]
    if len(cells) > MOST_ROWS:
        cells = sorted(cells, key=lambda cell: -cell[2])[:MOST_ROWS]
    columns = ["true", "predicted", "pixels"]
    logger.log_table("val/confusion", columns=columns, data=cells, step=step)


def log_image_scores(logger: WandbLogger, columns: list[str], rows: list[list], step: int) -> None:
    """Log the scores of every image to W&B as a table to sort and filter.

    W&B's tables end after 10,000 rows: of more images those of lowest mIoU are logged, which is
    said.

    Args:
        logger: of the run.
        columns: names, "miou" among them.
        rows: one an image; None where an image has no score.
        step: under which it is logged.
    """
    if len(rows) > MOST_ROWS:
        say(
            f"W&B's table of images has the {MOST_ROWS:,} of lowest mIoU of {len(rows):,}, for "
            "it takes no more; images.csv has all"
        )
        place = columns.index("miou")
        scored = [row for row in rows if row[place] is not None]
        rows = sorted(scored, key=lambda row: row[place])[:MOST_ROWS]
    logger.log_table(IMAGE_TABLE, columns=columns, data=rows, step=step)


def _filled(array: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """Fill up below and on the right: W&B shows images of different sizes under one key wrongly."""
    height, width = array.shape[:2]
    edges = [(0, size[0] - height), (0, size[1] - width), (0, 0)]
    return np.pad(array, edges[: array.ndim], constant_values=value)
