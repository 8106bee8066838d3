"""Pictures of what a method trains with: ten times a training, a batch's images and their labels.

They show mistakes that no number does: source images that are all dark, pseudo-labels of one class,
a mixture in which nothing of the target is left. A file training/<step>.png in the run's folder
each, and the same for the loggers that take images, as W&B.

Letters: B batch · C classes · H×W image · h×w feature grid.
"""

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.pictures.masks import FAST, comparison
from deeplab_lit.runs.csv_logger import MetricsFile
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.types import Classes

PANELS = 10  # a training
MOST = 4  # images of a batch
Labels = Tensor  # (B,H,W), class indices and 255 for void; or logits (B,C,h,w), of any size


def show_batch(
    module: DeepLabModule,
    batch: dict,
    batch_idx: int,
    *,
    target: Labels,
    mixed: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Draw a batch, if it is one of the ten of a training: one line in any `training_step`.

    Nothing is drawn by other processes than the first, and nothing random.

    Args:
        module: that trains.
        batch: the training batch, with its part "unlabeled".
        batch_idx: its number in the epoch, as `training_step` has it.
        target: the pseudo-labels of the unlabeled images, or what the network makes of them.
        mixed: images (B,3,H,W) in 0…255 made of both parts, and their labels (B,H,W).
    """
    trainer = module.trainer
    every = max(module.count_steps() // PANELS, 1)
    is_first = batch_idx % trainer.accumulate_grad_batches == 0
    if not trainer.is_global_zero or module.global_step % every or not is_first:
        return
    folders = [Path(log.save_dir) for log in trainer.loggers if isinstance(log, MetricsFile)]
    wandb = [log for log in trainer.loggers if isinstance(log, WandbLogger)]
    takers = [log for log in wandb if not log.experiment.disabled]
    if not folders and not takers:
        return
    parts = {
        "source": (batch["image"], batch["mask"], batch["id"]),
        "target": (batch["unlabeled"]["image"], target, batch["unlabeled"]["id"]),
    }
    if mixed is not None:
        parts["mixed"] = (*mixed, [""] * len(mixed[0]))
    panel = draw(parts, module.classes)
    for folder in folders:
        with atomic_write(folder / "training" / f"{module.global_step:06}.png") as place:
            panel.save(place, compress_level=FAST)
    for logger in takers:
        logger.log_image("train/batch", [panel], step=module.global_step)


def draw(parts: dict[str, tuple[Tensor, Labels, list[str]]], classes: Classes) -> Image.Image:
    """Draw up to four samples of a batch, a row each: every part's image beside its labels.

    Args:
        parts: name → images (B,3,H,W) in 0…255, labels, and the images' names.
        classes: names and colors.
    """
    number = min(MOST, *(len(images) for images, _, _ in parts.values()))
    columns = [
        [
            (pixels, labels, f"{name} {id}".strip())
            for pixels, labels, id in zip(
                _pixels(images[:number]), _indices(labels[:number]), ids, strict=False
            )
        ]
        for name, (images, labels, ids) in parts.items()
    ]
    row_by_row = [cell for row in zip(*columns, strict=True) for cell in row]
    samples = [(pixels, labels) for pixels, labels, _ in row_by_row]
    captions = [caption for _, _, caption in row_by_row]
    titles = ("image", "labels")
    return comparison(samples, classes, titles, columns=len(parts), captions=captions)


def _pixels(images: Tensor) -> np.ndarray:
    """Return images (B,3,H,W) in 0…255 as (B,H,W,3) uint8 on the CPU."""
    images = images.detach().float().round().clamp(0, 255)
    return images.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()


def _indices(labels: Labels) -> np.ndarray:
    """Return labels, of logits the most probable ones, as (B,·,·) uint8 on the CPU."""
    labels = labels.detach().argmax(1) if labels.ndim == 4 else labels
    return labels.to("cpu", torch.uint8).numpy()
