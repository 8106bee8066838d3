"""How good pseudo-labels are, where the ground truth of their images is there.

Void in a mask is no wrong label, for it teaches nothing; but published numbers of pseudo-masks are
mostly from scripts that turn it into background first (the evaluation of IRN and of RIB). Both
scores are given, and how much is void.

Letters: C classes · H×W image.
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplab_lit.data.check import Check, Summary, spread, table
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.image import DataError
from deeplab_lit.loading import DataModule
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.scoring.metric import Scores, mean_iou
from deeplab_lit.text import plural, say
from deeplab_lit.types import VOID

BACKGROUND = "background"


@dataclass(frozen=True)
class MaskQuality:
    """Pseudo-labels compared with the ground truth of the same images.

    Attributes:
        confusion: (C,C+1) int64, pixels by true class and by class in the masks; the last column is
            void in the masks. Void in the ground truth is not counted.
        classes: C names.
        compared: images.
        with_truth: training images whose ground truth is there.
        total: training images.
        left_out: a sentence for each ground truth that cannot be read, or is of another size.
    """

    confusion: Tensor
    classes: Sequence[str]
    compared: int
    with_truth: int
    total: int
    left_out: Sequence[str] = ()

    @property
    def scores(self) -> Scores:
        """Scores of the pixels that are not void in the masks."""
        return Scores(self.confusion[:, :-1])

    @property
    def miou_void_as_background(self) -> float | None:
        """Mean IoU with void as background; None where there is no such class, or no void."""
        if self.classes[0] != BACKGROUND or not self.confusion[:, -1].any():
            return None
        as_background = self.confusion[:, :-1].clone()
        as_background[:, 0] += self.confusion[:, -1]
        return mean_iou(as_background)

    @property
    def void_share(self) -> float:
        """Share of void in the masks, of the pixels that the ground truth labels, 0…1."""
        return int(self.confusion[:, -1].sum()) / max(int(self.confusion.sum()), 1)

    def as_dict(self) -> dict[str, Any]:
        """Return what results.json holds: plain numbers, None for what is undefined."""
        scores = self.scores.as_dict(self.classes)
        background = self.miou_void_as_background
        return {
            "images": self.compared,
            "images_with_ground_truth": self.with_truth,
            "void_share": self.void_share,
            "miou_void_as_background": scores["miou"] if background is None else background,
            **scores,
        }

    def in_words(self) -> str:
        """Return the scores as text: a sentence, then the IoU of each class in columns."""
        scores, background = self.scores, self.miou_void_as_background
        looked_at = "" if self.compared == self.with_truth else f"{self.compared:,} of "
        title = f"Against the ground truth of {looked_at}{plural(self.with_truth, 'image')}"
        if self.with_truth < self.total:
            title += f" (there is none of the other {self.total - self.with_truth:,})"
        present = int((~scores.iou.isnan()).sum())
        title += f": mIoU {_percent(scores.miou)} over {plural(present, 'class')}"
        if self.void_share:
            title += f", without the {self.void_share:.2%} of the pixels that are void in the masks"
        if background is not None:
            title += f"; {_percent(background)} with void as background, as IRN and RIB score"
        width = max(map(len, self.classes))
        values = zip(self.classes, scores.iou.tolist(), strict=True)
        cells = [f"{name:<{width}}{_percent(iou):>9}" for name, iou in values]
        columns = max(min(shutil.get_terminal_size().columns, 100) // (width + 12), 1)
        rows = -(-len(cells) // columns)
        lines = ["   ".join(cells[row::rows]) for row in range(rows)]
        if self.left_out:
            others = f"{len(self.left_out):,} cannot be compared, as {self.left_out[0]}"
            lines.append(others)
        return "\n".join([f"{title}. IoU of each class:", *lines])


def quality_of(
    data: SegmentationData, masks: Summary, check: Check, num_workers: int
) -> MaskQuality | None:
    """Compare the masks of `mask_dir` with the ground truth of the same images.

    Args:
        data: a data set with a `mask_dir`.
        masks: what these hold.
        check: "full" compares all; "quick" at most 500 masks, or fewer where they are large.
        num_workers: threads that read.

    Returns:
        None where no ground truth is there.

    Raises:
        DataError: a mask cannot be read.
    """
    training, truth, number = data.training(), data.truth(), len(data.classes)
    if truth is None:
        return None
    places = {id: index for index, id in enumerate(truth.ids)}
    both = [(index, places[id]) for index, id in enumerate(training.ids) if id in places]
    if not both:
        return None
    chosen = spread(len(both), len(both) if check == "full" else masks.affordable)

    def counted(place: int) -> np.ndarray | str:
        index, true_index = both[place]
        mask = training.mask(index)
        try:
            true = truth.mask(true_index)
        except DataError as error:  # of a file that is not trained on
            return str(error)
        if mask.shape != true.shape:
            return f"that of {training.ids[index]}, which has another size than its mask"
        return confusion_with_void(true, mask, number)

    confusion, left_out = np.zeros((number, number + 1), np.int64), []
    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        for part in progress_bar(
            pool.map(counted, chosen),
            desc="comparing masks with the ground truth",
            total=len(chosen),
            unit=" images",
            leave=False,
            delay=1,
        ):
            if isinstance(part, str):
                left_out.append(part)
            else:
                confusion += part
    return MaskQuality(
        torch.from_numpy(confusion),
        list(data.classes),
        compared=len(chosen) - len(left_out),
        with_truth=len(both),
        total=len(training.ids),
        left_out=left_out,
    )


def say_pseudo_labels(datamodule: DataModule) -> dict[str, Any]:
    """Say what the masks of each `mask_dir` hold, and how good they are where that can be known.

    Returns:
        The entry of results.json, "pseudo_labels": by the section of the data set; none without a
        `mask_dir`.

    Raises:
        DataError: what is wrong with the masks, or all of them are void.
    """
    entries: dict[str, Any] = {}
    sections = {"data": datamodule.train, "unlabeled_data": datamodule.unlabeled}
    workers, check = datamodule.num_workers, datamodule.check
    for section, data in sections.items():
        masks = data.pseudo_labels(workers, check) if data is not None else None
        if data is None or masks is None:
            continue
        quality = quality_of(data, masks, check, workers)
        text = table([masks], list(data.classes))
        say(text if quality is None else f"{text}\n\n{quality.in_words()}", "")
        entries[section] = {
            "mask_dir": str(data.mask_dir),
            "images": masks.total,
            "images_looked_at": masks.number,
            "void_share": masks.void_share,
            "against_ground_truth": None if quality is None else quality.as_dict(),
        }
    return {"pseudo_labels": entries} if entries else {}


def confusion_with_void(true: np.ndarray, mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of each true class and each class of a mask, (C,C+1) int64.

    Args:
        true: (H,W) uint8, class indices; 255 is not counted.
        mask: (H,W) uint8, class indices; 255 counts in the last column.
        num_classes: C.
    """
    is_labeled = true != VOID
    columns = np.minimum(mask[is_labeled], num_classes)
    cells = true[is_labeled].astype(np.int64) * (num_classes + 1) + columns
    counts = np.bincount(cells, minlength=num_classes * (num_classes + 1))
    return counts.reshape(num_classes, num_classes + 1)


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.2f} %"
