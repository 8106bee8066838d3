"""DACS: learn the target from pseudo-labels of a mean teacher, on images mixed of both domains.

Tranheden et al., DACS: Domain Adaptation via Cross-domain Mixed Sampling (arXiv:2007.08702), with
ClassMix (Olsson et al., arXiv:2007.07936) as the mixture. Details are those of the authors' code
(vikolss/DACS, trainUDA.py and utils/). In each step

1. the teacher, a slow copy of the network, labels the target's images;
2. half of the classes of a source image are pasted, with their labels, into a target image;
3. colors of the mixture are changed at random, and it is blurred;
4. the network learns the source, and the mixture, whose target pixels have the weight q: the share
   of the target's pixels of which the teacher is sure;
5. the teacher moves towards the network.

Letters: B batch · C classes · H×W image · h×w feature grid.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from deeplab_lit.data import DataError
from deeplab_lit.loading import DataModule
from deeplab_lit.methods.panel import show_batch
from deeplab_lit.network.multiscale import ScaleLogits
from deeplab_lit.runs.provenance import Provenance
from deeplab_lit.training.loss import with_targets
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.types import VOID, Classes

TeacherNorm = Literal["train", "eval"]
Picks = Literal["ceil", "floor"]
JITTERED, BLURRED = 0.8, 0.5  # shares of the batches
SIGMAS = (0.15, 1.15)  # of the blur, in pixels
KERNEL = 9  # pixels: 3.5 of the largest sigma to each side


class DACS(DeepLabModule):
    """DACS: a mean teacher, ClassMix and the share of confident pixels.

    Each step takes a batch of --data, the source, with labels, and one of --unlabeled_data, the
    target, without, of one size; activations of the source and of the mixture are in memory at
    once. An auxiliary head learns from the source alone. The teacher is in the checkpoints, for a
    run that goes on; all other commands, and validations, use the network.

    Logged are train/loss, the sum; train/source_loss and train/mix_loss, its parts; and
    train/confident_share, q of this process's batch.

    Args:
        confidence: probability from which on the teacher counts as sure.
        ema_decay: of the teacher, at most: α = min(1 − 1/(step + 1), ema_decay), so that it begins
            as the network's mean over its first steps.
        teacher_norm: "train": the teacher normalizes with the statistics of its own batches, where
            they are not frozen, as the authors' does; "eval": with the network's running ones.
        picks: half of an odd number of classes is rounded up ("ceil", the authors') or down
            ("floor", as ClassMix itself).
        jitter: largest change of brightness, contrast, saturation and hue, in 80 % of the batches,
            as a fraction; 0: none.
        blur: blur the mixture in half of the batches.
    """

    needs_unlabeled = True

    def __init__(
        self,
        classes: Classes,
        *,
        confidence: float = 0.968,
        ema_decay: float = 0.99,
        teacher_norm: TeacherNorm = "train",
        picks: Picks = "ceil",
        jitter: float = 0.25,
        blur: bool = True,
        **kwargs,
    ) -> None:
        for name, value, most in (
            ("confidence", confidence, 1), ("ema_decay", ema_decay, 1), ("jitter", jitter, 0.5)
        ):  # fmt: skip
            if not 0 <= value <= most:
                raise ValueError(f"{name} is out of range: {value}, expected 0…{most}")
        for name, word, words in (
            ("teacher_norm", teacher_norm, get_args(TeacherNorm)), ("picks", picks, get_args(Picks))
        ):  # fmt: skip
            if word not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}, got {word!r}")
        super().__init__(classes, **kwargs)
        if self.loss is not None:
            raise ValueError(
                f"DACS weights the pixels of a mixture, which the loss {type(self.loss).__name__} "
                "cannot: leave out --model.loss"
            )
        self.confidence, self.ema_decay, self.teacher_norm = confidence, ema_decay, teacher_norm
        self.picks, self.jitter, self.blur = picks, jitter, blur
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def initialize(self) -> Provenance:
        """Load the weights that training starts from, also into the teacher."""
        is_begin = self.provenance is None
        provenance = super().initialize()
        if is_begin:
            self.teacher.load_state_dict(self.net.state_dict())
        return provenance

    def record_data(self, data: DataModule) -> None:
        """Record the data of a training; refuse crops of two sizes, and masks in vain.

        Raises:
            DataError: those.
        """
        _check_sizes(data.transform.crop, data.unlabeled_transform.crop)
        if data.unlabeled is not None and data.unlabeled.mask_dir is not None:
            raise DataError(
                "DACS makes its pseudo-labels itself: leave out --unlabeled_data.mask_dir, or "
                "train with --model deeplab_lit.methods.SelfTraining"
            )
        super().record_data(data)

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Return the loss of a batch: labels of the source, and those of the mixture."""
        images, mask, target = batch["image"], batch["mask"], batch["unlabeled"]["image"]
        _check_sizes(images.shape[-2:], target.shape[-2:])
        rng = self.generator(batch_idx)
        labels, share = self.pseudo_labels(target)
        pasted = torch.stack([class_mask(each, self.picks, rng) for each in mask])
        mixed = torch.where(pasted[:, None], images, target)
        mixed = blurred(jittered(mixed, self.jitter, rng), self.blur, rng)
        mixed_mask = torch.where(pasted, mask, labels)
        weight = torch.where(pasted, 1.0, share)

        source_loss = self.labeled_loss(images, mask)
        mix_loss = self.weighted_loss(self.net.logits(mixed), mixed_mask, weight)
        loss = source_loss + mix_loss
        parts = {"source_loss": source_loss, "mix_loss": mix_loss, "confident_share": share}
        self.log("train/loss", loss, batch_size=len(images), prog_bar=True)
        self.log_dict({f"train/{k}": v for k, v in parts.items()}, batch_size=len(images))
        show_batch(self, batch, batch_idx, target=labels, mixed=(mixed, mixed_mask))
        return loss

    def generator(self, batch_idx: int) -> Generator:
        """Return the random numbers of a batch, the same for a run that was interrupted here."""
        part = batch_idx % self.trainer.accumulate_grad_batches
        key = (torch.initial_seed(), self.global_step, part, self.global_rank)
        return np.random.default_rng(key)

    @torch.no_grad()
    def pseudo_labels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's labels of images, and the share of pixels of which it is sure.

        Args:
            images: (B,3,H,W).

        Returns:
            (B,H,W) uint8; and a scalar over the whole batch.
        """
        for part, of_network in zip(self.teacher.modules(), self.net.modules(), strict=True):
            part.training = self.teacher_norm == "train" and of_network.training
        confidence, labels = self.teacher(images).softmax(1).max(1)
        return labels.byte(), (confidence >= self.confidence).float().mean()

    def weighted_loss(self, logits: ScaleLogits, mask: Tensor, weight: Tensor) -> Tensor:
        """Return the loss of a mixture, summed over scales and their maximum as `training_loss`.

        Args:
            logits: of the network.
            mask: (B,H,W) uint8, class indices and 255 for void.
            weight: (B,H,W) of each pixel.
        """
        pairs = with_targets(
            logits, (mask, weight), align_corners=self.net.align_corners, size=self.loss_size
        )
        terms = [weighted_cross_entropy(scale, *targets) for scale, targets in pairs]
        return torch.stack(terms).sum()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimizer, then move the teacher towards the network."""
        decay = min(1 - 1 / (self.global_step + 1), self.ema_decay)
        super().optimizer_step(*args, **kwargs)
        move(self.teacher, self.net, decay)
        if self.teacher_norm == "eval":  # else it has statistics of its own
            for buffer, of_network in zip(self.teacher.buffers(), self.net.buffers(), strict=True):
                buffer.copy_(of_network)


@torch.no_grad()
def move(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Set every parameter of the teacher to decay × its own + (1 − decay) × the student's."""
    for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.lerp_(theirs, 1 - decay)


def number_of_picks(classes: int, picks: Picks) -> int:
    """Return half of the classes, rounded up or down."""
    return math.ceil(classes / 2) if picks == "ceil" else classes // 2


def class_mask(mask: Tensor, picks: Picks, rng: Generator) -> Tensor:
    """Return which pixels (H,W) bool of a mask belong to half of its classes, void being one."""
    values = mask.unique()
    picked = rng.choice(len(values), number_of_picks(len(values), picks), replace=False)
    return torch.isin(mask, values[torch.as_tensor(picked, device=mask.device)])


def weighted_cross_entropy(logits: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of weighted cross-entropies over all pixels; void ones count as 0.

    Args:
        logits: (B,C,h,w).
        mask: (B,h,w), class indices and 255.
        weight: (B,h,w).
    """
    losses = F.cross_entropy(logits.float(), mask.long(), ignore_index=VOID, reduction="none")
    return (weight * losses).mean()


def jittered(images: Tensor, strength: float, rng: Generator) -> Tensor:
    """Change the colors of images (B,3,H,W) uint8 at random, each its own way, or leave all.

    Args:
        images: of a batch.
        strength: largest change of each factor from 1, and of the hue in turns of its circle.
        rng: of the batch.
    """
    changes = [
        (vision.adjust_brightness, 1.0),
        (vision.adjust_contrast, 1.0),
        (vision.adjust_saturation, 1.0),
        (vision.adjust_hue, 0.0),
    ]
    if rng.random() > JITTERED or not strength:
        return images
    order = rng.permutation(len(changes))
    done = []
    for image in images:
        for change, neutral in (changes[i] for i in order):
            image = change(image, neutral + rng.uniform(-strength, strength))
        done.append(image)
    return torch.stack(done)


def blurred(images: Tensor, blur: bool, rng: Generator) -> Tensor:
    """Blur images (B,3,H,W) in half of the calls, all by one random sigma."""
    if not blur or rng.random() > BLURRED:
        return images
    return vision.gaussian_blur(images, [KERNEL, KERNEL], [rng.uniform(*SIGMAS)])


def _check_sizes(source: Sequence[int] | None, target: Sequence[int] | None) -> None:
    """Refuse to mix crops of two sizes (height, width); None: whole images."""
    if source != target:
        words = [f"{size[1]}×{size[0]}" if size else "whole images" for size in (source, target)]
        raise DataError(
            f"DACS mixes crops of one size, but those of the source are {words[0]} and those of "
            f"the target {words[1]}: leave out --loader.unlabeled_crop_size, or choose a "
            "--loader.crop_size that fits both"
        )
