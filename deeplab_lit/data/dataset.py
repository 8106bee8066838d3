"""The LightningDataModule that all data sets share; a data set adds its splits and its classes."""

import os
from abc import abstractmethod
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader

from deeplab_lit.data.check import Check, Summary, first_of, preflight, summarize
from deeplab_lit.data.image import DataError
from deeplab_lit.data.meaning import (
    Finding,
    judge_classes,
    judge_names,
    judge_palettes,
    refuse_proved,
)
from deeplab_lit.data.paths import masks_of
from deeplab_lit.data.split import FileSplit, Split
from deeplab_lit.data.transforms import ScaleRange, TrainTransform
from deeplab_lit.loading.batches import SegmentationDataset, build_loader
from deeplab_lit.loading.sampler import EverySampleOnce, TrainStream
from deeplab_lit.text import plural
from deeplab_lit.types import Classes, Color

LARGEST_BATCH = 65536
MOST_WORKERS = 512  # processes beside each process that trains
TRAINING_BYTES = 16  # a pixel of a batch at least: image, mask, and the image in float32


def _refuse_beyond_memory(batch_size: int, crop_size: int) -> None:
    """Refuse batches that this machine cannot hold, instead of reading for them for hours."""
    needed = TRAINING_BYTES * batch_size * crop_size**2
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return
    if needed > there > 0:
        raise ValueError(
            f"a batch of {batch_size} crops of {crop_size}×{crop_size} takes at least "
            f"{needed / 1e9:,.0f} GB, and this machine has {there / 1e9:,.0f}: set a smaller "
            "--data.batch_size or --data.crop_size"
        )


class SegmentationData(LightningDataModule):
    """Images and masks of a data set, as batches.

    Args:
        batch_size: images that each process takes at once in training.
        total_batch_size: images that an optimizer step is meant to see: processes × batch_size ×
            trainer.accumulate_grad_batches. The learning rate belongs to it, so a run with another
            total says so. null: any.
        crop_size: side of the training crop in pixels, (crop_size − 1) divisible by 32 for the
            paper's scales: 321 for PASCAL VOC.
        scales: random scaling in training: a list to choose from, or {min: …, max: …}.
        color_jitter: random brightness, contrast and saturation in training, as a fraction.
        train_split: which split to train on.
        val_split: which split to validate on.
        mask_dir: folder with a mask <id>.png for every training image, to train on instead of the
            ground truth (pseudo-labels); its values are class indices, and 255 for void.
        eval_batch_size: images that each process evaluates at once; more than 1 only where all
            have the same size.
        num_workers: processes that read data, for each training process. null: one a core, at
            most 8.
        check: how much of the data to read before the first step: "quick" or "full".
    """

    classes: Classes  # name → color, in the order of the class indices
    parts: dict[str, set[str]] = {}  # split → the disjoint sets of images that it is made of
    ids_are_global = True  # an id is the same image in every split
    palette: dict[int, Color] = {}  # of the label files, where all have the same: value → color
    never: frozenset[str] = frozenset()  # classes that no label file holds

    def __init__(
        self,
        *,
        batch_size: int = 10,
        total_batch_size: int | None = None,
        crop_size: int = 321,
        scales: tuple[float, ...] | ScaleRange = (0.5, 0.75, 1.0, 1.25, 1.5),
        color_jitter: float = 0.0,
        train_split: str = "train",
        val_split: str = "val",
        mask_dir: str | None = None,
        eval_batch_size: int = 1,
        num_workers: int | None = None,
        check: Check = "quick",
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
            if value > LARGEST_BATCH:
                raise ValueError(f"{name} must be at most {LARGEST_BATCH}, got {value}")
        if total_batch_size is not None and total_batch_size < 1:
            raise ValueError(f"total_batch_size must be 1 or more, or null, got {total_batch_size}")
        if num_workers is not None and not 0 <= num_workers <= MOST_WORKERS:
            raise ValueError(f"num_workers must be in 0…{MOST_WORKERS}, or null, got {num_workers}")
        _refuse_beyond_memory(batch_size, crop_size)
        self.batch_size = batch_size
        self.total_batch_size = total_batch_size
        self.transform = TrainTransform(crop_size, scales, color_jitter)
        self.train_split = train_split
        self.val_split = val_split
        self.mask_dir = Path(mask_dir).expanduser() if mask_dir else None
        self.eval_batch_size = eval_batch_size
        self.num_workers = min(os.cpu_count() or 1, 8) if num_workers is None else num_workers
        self.check = check

    @abstractmethod
    def split(self, name: str) -> Split:
        """The named split.

        Raises:
            DataError: it does not exist, or has no labels.
        """

    def training(self) -> Split:
        """The split to train on, with the masks of `mask_dir` where that is given.

        Raises:
            DataError: as `split`; or masks are missing.
        """
        split = self.split(self.train_split)
        if self.mask_dir is None:
            return split
        if not isinstance(split, FileSplit):
            raise DataError(f"mask_dir: {type(self).__name__} has no mask files to replace")
        masks = masks_of(split.ids, self.mask_dir)
        pairs = [p._replace(mask=mask) for p, mask in zip(split.pairs, masks, strict=True)]
        return FileSplit(pairs, split.num_classes, passed_over=split.passed_over)

    def label(self, split: str) -> str:
        """How a split is called where a checkpoint names what it was trained on."""
        return f"{type(self).__name__}:{split}"

    def trained_on(self) -> int:
        """How many of the validation images are training images too."""
        if not self.ids_are_global and self.train_split != self.val_split:
            return 0
        return len(set(self.training().ids) & set(self.split(self.val_split).ids))

    def preflight(self, stage: str) -> list[str]:
        """Check the splits that `fit` or `validate` will read.

        Returns:
            What looks wrong but need not be, a sentence each.

        Raises:
            DataError: what is wrong, with its file.
        """
        training = self._look_at(self.training(), self.train_split) if stage == "fit" else None
        validation = self._look_at(self.split(self.val_split), self.val_split)
        return refuse_proved(self.findings(training, validation))

    def findings(self, training: Summary | None, validation: Summary | None) -> list[Finding]:
        """Judge whether the masks mean what they seem.

        Args:
            training: what the masks of `training()` hold; None where they are not used.
            validation: what those of the split to validate on hold.
        """
        both = (training, None if validation is training else validation)
        summaries = [summary for summary in both if summary is not None]
        names = list(self.classes)
        values = summaries[-1].label_values if summaries else {}
        remedies = [self.void_remedy(values.get(index, index)) for index in range(len(names))]
        found = [Finding(f"{s.title}: {r}", proved=False) for s in summaries for r in s.remarks]
        found += judge_names(names, remedies)
        if len(names) == 1:
            return found
        own = []
        for summary in summaries:
            if summary is training and self.mask_dir is not None:
                found += judge_palettes(summary.colors, self.palette)
                moved = [index for index, value in values.items() if index != value]
                if moved:
                    found.append(
                        Finding(
                            f"{summary.title}: these masks are read as class indices, and not as "
                            f"the values of the label files: {names[moved[0]]} is {moved[0]} here "
                            f"and {values[moved[0]]} there",
                            proved=False,
                        )
                    )
            else:
                found += filter(None, [self.odd_values(summary)])
                own.append(summary)
            found += judge_classes(summary, names, training=summary is training, never=self.never)
        colors = {entry: where for s in reversed(own) for entry, where in s.colors.items()}
        return found + list(judge_palettes(colors, self.palette))

    def odd_values(self, found: Summary) -> Finding | None:
        """Judge the values in a split's label files, where the data set's own rule them out."""
        return None

    def void_remedy(self, value: int) -> str:
        """How to make the class of a value void, as the end of a sentence."""
        return f"write 255 instead of {value}"

    def pseudo_labels(self) -> Summary | None:
        """What the masks of `mask_dir` hold, every one of them read; null without such masks.

        Raises:
            DataError: a list of what is wrong with them, or all of them are void.
        """
        if self.mask_dir is None:
            return None
        title = f"{type(self).__name__} {self.train_split} with masks of {self.mask_dir}"
        found = summarize(self.training(), title, len(self.classes), self.num_workers)
        if found.problems:
            raise DataError("\n".join(first_of(found.problems, title, found.total)))
        refuse_proved(self.findings(found, None))
        return found

    def _look_at(self, split: Split, name: str) -> Summary:
        title = f"{type(self).__name__} {name}"
        return preflight(split, title, self.check, self.num_workers, len(self.classes))

    def setup(self, stage: str) -> None:
        """Take the seed of the data's order and augmentation from seed_everything's."""
        self.seed = self.trainer.strategy.broadcast(torch.initial_seed())

    def train_dataloader(self) -> DataLoader:
        """An epoch of the training stream."""
        trainer = self.trainer
        dataset = SegmentationDataset(self.training(), self.transform, self.seed)
        stream = TrainStream(
            dataset,
            batch_size=self.batch_size,
            accumulate=trainer.accumulate_grad_batches,
            num_replicas=trainer.world_size,
            rank=trainer.global_rank,
            seed=self.seed,
            steps_done=lambda: trainer.global_step,
        )
        if self.total_batch_size not in (None, stream.step_size):
            rank_zero_warn(
                f"an optimizer step sees {plural(stream.step_size, 'image')} "
                f"({plural(trainer.world_size, 'process')} × batch_size {self.batch_size} "
                f"× accumulate_grad_batches {trainer.accumulate_grad_batches}), but the learning "
                f"rate is meant for {self.total_batch_size} (data.total_batch_size)"
            )
        return build_loader(dataset, stream, self.batch_size, self.num_workers, keep_workers=True)

    def val_dataloader(self) -> DataLoader:
        """Every image of the validation split once, at native size.

        Raises:
            DataError: fewer images than processes.
        """
        dataset = SegmentationDataset(self.split(self.val_split))
        processes = self.trainer.world_size
        if len(dataset) < processes:
            raise DataError(
                f"{type(self).__name__} {self.val_split} has {plural(len(dataset), 'image')} for "
                f"{processes} processes; use at most one process an image"
            )
        sampler = EverySampleOnce(dataset, processes, self.trainer.global_rank)
        return build_loader(dataset, sampler, self.eval_batch_size, self.num_workers)
