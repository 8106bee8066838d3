"""The LightningDataModule: a data set to train on, one to validate on, and how both are batched."""

import os
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader

from deeplab_lit.data.check import Check, Summary, preflight
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.folder import Images
from deeplab_lit.data.image import DataError
from deeplab_lit.data.meaning import Finding, refuse_proved
from deeplab_lit.data.split import Split
from deeplab_lit.data.transforms import CropSize, ScaleRange, TrainTransform
from deeplab_lit.loading.batch_sizes import (
    refuse_beyond_memory,
    refuse_mixed_scales,
    refuse_mixed_sizes,
)
from deeplab_lit.loading.batches import (
    UNLABELED_AUGMENTATION,
    PairedDataset,
    SegmentationDataset,
    build_loader,
)
from deeplab_lit.loading.sampler import (
    ORDER,
    UNLABELED_ORDER,
    EverySampleOnce,
    PairedStream,
    TrainStream,
)
from deeplab_lit.loading.views import (
    ReorderedSplit,
    WithoutLabels,
    class_table,
    refuse_other_indices,
)
from deeplab_lit.text import plural
from deeplab_lit.types import Classes, Filter, Size
from deeplab_lit.workers import check_workers

COMPARED = 8  # masks with the truth
LARGEST_BATCH, MOST_WORKERS = 65536, 512  # workers: beside each process that trains


class DataModule(LightningDataModule):
    """Batches of a data set to train on and of one to validate on.

    Args:
        train: the data set to train on.
        val: the data set to validate on, of the same classes in any order. None: `train`.
        unlabeled: a data set whose images are a second part of each training batch, without their
            masks: batch["unlabeled"] = {"image", "id"}, as many as there are labeled ones. They are
            augmented alike, and an epoch is one of `train`. With a `mask_dir`, its masks are there
            too, as "mask". None: no such part.
        classes: name → color, in the order of the network's class indices. None: as in `train`.
        only_selected: of the images to validate on, those that the list of `val` selects (its `ids`
            or `all_but`).
        batch_size: images that each process takes at once in training.
        total_batch_size: images that an optimizer step is meant to see: processes × batch_size ×
            trainer.accumulate_grad_batches. The learning rate belongs to it, so a run with another
            total says so. None: any.
        crop_size: side of the training crop in pixels, (crop_size − 1) divisible by 32 for the
            paper's scales: 321 for PASCAL VOC; or [height, width]; or "whole" for whole images.
        resize: [height, width] of training images before they are scaled and cropped. Resized as
            Pillow does it, masks by the nearest pixel. None: images keep their size.
        resize_filter: of these images, and of the unlabeled ones: "bicubic" or "bilinear".
        mirror: mirror every other training image.
        unlabeled_crop_size: as `crop_size`, for unlabeled images. None: the same.
        unlabeled_resize: as `resize`, for unlabeled images. None: the same.
        scales: random scaling in training: a list to choose from, or {min: …, max: …}.
        color_jitter: random brightness, contrast and saturation in training, as a fraction.
        eval_batch_size: images that each process evaluates at once; above 1 if all have one size.
        num_workers: processes that read data, for each training process. None: one a core, at
            most 8.
        check: how much of the data to read before the first step: "quick" or "full".

    Raises:
        ValueError: a number out of range, or a crop that fits no image.
        DataError: `val` has other classes, a list of training images or masks for them; or
            `unlabeled` has other classes, and a `mask_dir`.
    """

    def __init__(
        self,
        train: SegmentationData,
        val: SegmentationData | None = None,
        unlabeled: SegmentationData | None = None,
        classes: Classes | None = None,
        *,
        only_selected: bool = False,
        batch_size: int = 10,
        total_batch_size: int | None = None,
        crop_size: CropSize = 321,
        scales: tuple[float, ...] | ScaleRange = (0.5, 0.75, 1.0, 1.25, 1.5),
        resize: Size | None = None,
        resize_filter: Filter = "bicubic",
        mirror: bool = True,
        color_jitter: float = 0.0,
        unlabeled_crop_size: CropSize | None = None,
        unlabeled_resize: Size | None = None,
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
        alike: dict[str, Any] = {"resize_filter": resize_filter, "mirror": mirror}
        self.transform = TrainTransform(crop_size, scales, color_jitter, resize=resize, **alike)
        self.unlabeled_transform = self.transform
        if unlabeled_crop_size is not None or unlabeled_resize is not None:
            crop_size = crop_size if unlabeled_crop_size is None else unlabeled_crop_size
            resize = resize if unlabeled_resize is None else unlabeled_resize
            try:
                self.unlabeled_transform = TrainTransform(
                    crop_size, scales, color_jitter, resize=resize, **alike
                )
            except ValueError as error:
                raise ValueError(f"of unlabeled images, {error}") from None
        transforms = [self.transform] + ([] if unlabeled is None else [self.unlabeled_transform])
        refuse_mixed_scales(batch_size, transforms)
        refuse_beyond_memory(batch_size, transforms)
        if val is not None and val.selection is not None:
            raise DataError(
                f"--val_data.{val.selection.option} selects images to train on, and images are "
                "validated on as a split has them: leave it out, or give --val_data.val_split"
            )
        if val is not None and val.mask_dir is not None:
            raise DataError(
                "--val_data.mask_dir: its masks are those of images to train on, and images are "
                "validated on with the ground truth: leave it out. validate --masks scores a folder"
            )
        self.train, self.val = train, train if val is None else val
        self.classes = train.classes if classes is None else classes
        self.class_table = class_table(self.val, self.classes)
        self.only_selected = only_selected
        if isinstance(unlabeled, Images):
            unlabeled = unlabeled.of_classes(self.classes)
        if unlabeled is not None and unlabeled.mask_dir is not None:
            refuse_other_indices(unlabeled, self.classes)
        self.unlabeled = unlabeled
        self.batch_size = batch_size
        self.total_batch_size = total_batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = min(os.cpu_count() or 1, 8) if num_workers is None else num_workers
        check_workers(self.num_workers, "--loader.num_workers")
        self.check = check

    def validation(self) -> Split:
        """Return the split to validate on, its masks in the order of the network's classes.

        Raises:
            DataError: it does not exist, or has no labels.
        """
        split = self._scored()
        return split if self.class_table is None else ReorderedSplit(split, self.class_table)

    def _scored(self) -> Split:
        """Return the split to validate on, as its data set has it.

        Raises:
            DataError: as `validation`.
        """
        split = self.val.validation()
        return self.val.selected(split) if self.only_selected else split

    def scored_name(self) -> str:
        """Return the name of the split to validate on, with the list that selects images of it."""
        is_part = self.only_selected and self.val.selection is not None
        return self.val.training_name() if is_part else self.val.val_split

    def scored_label(self) -> str:
        """Return the name of what is validated on, like "VOC:val", as provenance names splits."""
        return self.val.label(self.scored_name())

    def preflight(self, stage: str) -> list[str]:
        """Check the splits that `fit` or `validate` will read.

        Args:
            stage: "fit" or "validate".

        Returns:
            What looks wrong but need not be, a sentence each.

        Raises:
            DataError: what is wrong, with its file.
        """
        training: Summary | None = None
        findings: list[Finding] = []
        if stage == "fit":
            training = self._look_at(self.train, self.train.training(), self.train.training_name())
            refuse_mixed_sizes(training, self.transform, self.batch_size, "resize")
            findings = self._look_at_unlabeled()
        validation = self._look_at(self.val, self._scored(), self.val.val_split)
        if self.val is self.train:
            return refuse_proved(self.train.findings(training, validation) + findings)
        findings += [] if training is None else self.train.findings(training, None)
        return refuse_proved(findings + self.val.findings(None, validation))

    def _look_at_unlabeled(self) -> list[Finding]:
        """Check the unlabeled images, and their masks where they have some.

        Raises:
            DataError: what is wrong, with its file.
        """
        data = self.unlabeled
        if data is None:
            return []
        title = f"unlabeled {data.title}"
        number = 0 if data.mask_dir is None else len(data.classes)
        split = self._unlabeled_split(data)
        summary = preflight(split, title, self.check, self.num_workers, number)
        transform = self.unlabeled_transform
        refuse_mixed_sizes(summary, transform, self.batch_size, "unlabeled_resize")
        return [] if data.mask_dir is None else data.findings(summary, None)

    def _unlabeled_split(self, data: SegmentationData) -> Split:
        """Return the unlabeled images, with the masks of `mask_dir` or with void ones.

        Raises:
            DataError: images or masks are missing.
        """
        return WithoutLabels(data.images()) if data.mask_dir is None else data.training()

    def _look_at(self, data: SegmentationData, split: Split, name: str) -> Summary:
        title = f"{data.title} {name}"
        return preflight(split, title, self.check, self.num_workers, len(data.classes))

    def trained_in_validation(self) -> int:
        """Count the validation images that are training images too."""
        return self.train.shared(self.train.training(), self.val)

    def unlabeled_in_validation(self) -> int:
        """Count the validation images that are among the unlabeled ones."""
        data = self.unlabeled
        return 0 if data is None else data.shared(data.images(), self.val)

    def labeled_in_unlabeled(self) -> int:
        """Count the training images with labels that are among the unlabeled ones too."""
        data = self.unlabeled
        if data is None:
            return 0
        return len(self.train.shared_by(self.train.training(), data, data.images()))

    def truths_in_masks(self) -> int:
        """Count the validation images whose truth is among the masks of the unlabeled ones.

        The first few are looked at: no network is right in every pixel of all of them. 0 where one
        of these masks differs from the truth.
        """
        data = self.unlabeled
        if data is None or data.mask_dir is None:
            return 0
        training, validation = data.training(), self.validation()
        shared = data.same_images(training, self.val)
        pairs = (
            (training.read(own)[1], validation.read(index)[1])
            for own, index in list(shared.items())[:COMPARED]
        )
        return len(shared) if all(np.array_equal(*pair) for pair in pairs) else 0

    def in_words(self) -> str:
        """Return what is trained on and validated on, with numbers, in one line."""
        training = plural(len(self.train.training().ids), "training image")
        validation = plural(len(self.val.validation().ids), "validation image")
        whose = "" if self.val is self.train else f"{self.val.title}: "
        parts = [
            f"{self.train.title}: {training} ({self.train.training_name()})",
            f"{whose}{validation} ({self.val.val_split})",
        ]
        if self.unlabeled is not None:
            images = plural(len(self.unlabeled.images().ids), "unlabeled image")
            parts.append(f"{self.unlabeled.title}: {images}")
        return ", ".join([*parts, plural(len(self.classes), "class")])

    def setup(self, stage: str) -> None:
        """Take the seed of the data's order and augmentation from seed_everything's."""
        self.seed = self._attached().strategy.broadcast(torch.initial_seed())

    def train_dataloader(self) -> DataLoader:
        """Return an epoch of the training stream."""
        labeled = SegmentationDataset(self.train.training(), self.transform, self.seed)
        stream = self._stream(labeled)
        self._warn_of_another_total(stream.step_size)
        sizes = self.batch_size, self.num_workers
        if self.unlabeled is None:
            return build_loader(labeled, stream, *sizes, keep_workers=True)
        split, transform = self._unlabeled_split(self.unlabeled), self.unlabeled_transform
        images = SegmentationDataset(split, transform, self.seed, UNLABELED_AUGMENTATION)
        has_masks = self.unlabeled.mask_dir is not None
        pairs = PairedDataset(labeled, images, pseudo_labeled=has_masks)
        both = PairedStream(stream, self._stream(images, UNLABELED_ORDER))
        return build_loader(pairs, both, *sizes, keep_workers=True)

    def _warn_of_another_total(self, images: int) -> None:
        trainer = self._attached()
        if self.total_batch_size not in (None, images):
            rank_zero_warn(
                f"an optimizer step sees {plural(images, 'image')} "
                f"({plural(trainer.world_size, 'process')} × batch_size {self.batch_size} "
                f"× accumulate_grad_batches {trainer.accumulate_grad_batches}), but the learning "
                f"rate is meant for {self.total_batch_size} (loader.total_batch_size)"
            )

    def _attached(self) -> Trainer:
        """Return the trainer that asks for batches."""
        assert self.trainer is not None
        return self.trainer

    def _stream(self, dataset: SegmentationDataset, order: int = ORDER) -> TrainStream:
        trainer = self._attached()
        return TrainStream(
            dataset,
            batch_size=self.batch_size,
            accumulate=trainer.accumulate_grad_batches,
            num_replicas=trainer.world_size,
            rank=trainer.global_rank,
            seed=self.seed,
            order=order,
            steps_done=lambda: trainer.global_step,
        )

    def val_dataloader(self) -> DataLoader:
        """Return every image of the validation split once, at native size.

        Raises:
            DataError: fewer images than processes.
        """
        dataset = SegmentationDataset(self.validation())
        trainer = self._attached()
        processes = trainer.world_size
        if len(dataset) < processes:
            raise DataError(
                f"{type(self.val).__name__} {self.val.val_split} has "
                f"{plural(len(dataset), 'image')} for {processes} processes; use at most one "
                "process an image"
            )
        sampler = EverySampleOnce(dataset, processes, trainer.global_rank)
        return build_loader(dataset, sampler, self.eval_batch_size, self.num_workers)
