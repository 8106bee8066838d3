"""A fixed set of validation images, with prediction and truth, after every few validations."""

import math
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from deeplab_lit.pictures.masks import comparison
from deeplab_lit.types import VOID

TITLES = ("image", "truth", "prediction")


class SamplePictures(Callback):
    """`predictions.png` in the run folder, and W&B's own mask overlays.

    The images are spread over the first process's share of the validation set and stay the same.
    Other processes do nothing.

    Args:
        folder: the run folder.
        num_images: how many.
        every: log to W&B after every so many validations.
    """

    def __init__(self, folder: Path, num_images: int = 8, every: int = 5) -> None:
        self.folder = folder
        self.num_images = num_images
        self.every = every
        self.samples: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
        self.refined: dict[str, np.ndarray] = {}
        self.validations = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep images of the chosen batches: one each, or more where there are few batches."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        batches = trainer.num_val_batches[0]
        chosen = np.linspace(0, batches - 1, min(batches, self.num_images)).round()
        if batch_idx not in chosen:
            return
        for i in range(min(len(batch["id"]), math.ceil(self.num_images / len(chosen)))):
            if len(self.samples) < self.num_images:
                image, mask = batch["image"][i].permute(1, 2, 0), batch["mask"][i]
                prediction = outputs[i].argmax(dim=0)
                arrays = [x.cpu().numpy().astype(np.uint8) for x in (image, mask, prediction)]
                self.samples.append((batch["id"][i], *arrays))

    @rank_zero_only
    def see_refined(self, id: str, labels: Tensor, mask: Tensor) -> None:
        """Keep an image's labels (H,W) after the CRF, if it is one of the chosen."""
        if id in [sample[0] for sample in self.samples]:
            self.refined[id] = labels.cpu().numpy().astype(np.uint8)

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the picture; log to W&B when it is time."""
        if trainer.sanity_checking or not self.samples:
            return
        classes = pl_module.hparams.classes
        titles, shown = TITLES, [list(sample[1:]) for sample in self.samples]
        if self.refined:
            titles = (*TITLES, "after the CRF")
            for (id, *_), pictures in zip(self.samples, shown, strict=True):
                pictures.append(self.refined[id])
        comparison(shown, classes, titles).save(self.folder / "predictions.png")
        last = (
            trainer.state.fn != "fit" or trainer.global_step >= trainer.estimated_stepping_batches
        )
        if self.validations % self.every == 0 or last:
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    self._log(logger, list(classes), pl_module, max(trainer.global_step - 1, 0))
        self.validations += 1
        self.samples, self.refined = [], {}

    def _log(
        self, logger: WandbLogger, names: list[str], module: LightningModule, step: int
    ) -> None:
        labels = dict(enumerate(names)) | {VOID: "void"}
        size = tuple(np.max([image.shape[:2] for _, image, _, _ in self.samples], axis=0))
        masks = []
        for id, _, truth, prediction in self.samples:
            shown = {"truth": truth, "prediction": prediction}
            if id in self.refined:
                shown["after_crf"] = self.refined[id]
            masks.append(
                {
                    name: {"mask_data": _filled(mask, size, VOID), "class_labels": labels}
                    for name, mask in shown.items()
                }
            )
        logger.log_image(
            "val/images",
            [_filled(image, size, 0) for _, image, _, _ in self.samples],
            step=step,
            caption=[id for id, *_ in self.samples],
            masks=masks,
        )
        rows = [[name, iou] for name, iou in zip(names, module.scores.iou.tolist(), strict=True)]
        logger.log_table("val/iou_by_class", columns=["class", "iou"], data=rows, step=step)
        cells = [
            [names[true], names[predicted], pixels]
            for true, row in enumerate(module.scores.confusion.tolist())
            for predicted, pixels in enumerate(row)
        ]
        columns = ["true", "predicted", "pixels"]
        logger.log_table("val/confusion", columns=columns, data=cells, step=step)


def _filled(array: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """Larger below and on the right: W&B shows images of different sizes under one key wrongly."""
    height, width = (own - old for own, old in zip(size, array.shape, strict=False))
    edges = [(0, height), (0, width), (0, 0)]
    return np.pad(array, edges[: array.ndim], constant_values=value)
