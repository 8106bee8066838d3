"""Distillation: learn the class probabilities of a trained network, beside the labels.

Hinton et al., Distilling the Knowledge in a Neural Network (arXiv:1503.02531), pixel by pixel. The
teacher is any weight file that `load` reads, of another backbone too:

    fit --model deeplab_lit.methods.Distillation --model.teacher FILE --data VOC --data.root DIR

With --unlabeled_data its images are learned from the teacher alone.
"""

import math

import torch
from torch import Tensor

from deeplab_lit.network.multiscale import ScaleLogits
from deeplab_lit.network.weights.load import load
from deeplab_lit.training.loss import soft_loss
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.types import VOID, Classes


class Distillation(DeepLabModule):
    """Minimize the loss of the labels, and the cross-entropy with a teacher's probabilities.

    The loss is labeled + weight · T² · soft, T the temperature, as in the paper's Sec. 2. The soft
    part counts where labels are not void, and everywhere in unlabeled images; it is summed over
    scales and their maximum like the labeled one. The teacher is frozen, in evaluation mode, and in
    the checkpoints, for a run that goes on; all other commands use the network.

    Logged are train/loss, the sum; train/labeled_loss and train/soft_loss, its parts without
    weight.

    Args:
        teacher: weight file of the trained network; its classes must be those of the data.
        soft_weight: of the cross-entropy with the teacher's probabilities.
        temperature: T, by which the logits of both networks are divided; above 1 the less probable
            classes count more.
    """

    def __init__(
        self,
        classes: Classes,
        *,
        teacher: str,
        soft_weight: float = 1.0,
        temperature: float = 1.0,
        **kwargs,
    ) -> None:
        if not 0 <= soft_weight < math.inf:
            raise ValueError(f"soft_weight is out of range: {soft_weight}, expected 0 or more")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is out of range: {temperature}, expected more than 0")
        super().__init__(classes, **kwargs)
        self.soft_weight, self.temperature = soft_weight, temperature
        # in training mode only as Lightning expects it: `teacher_loss` evaluates
        self.teacher = load(teacher).train().requires_grad_(False)
        theirs = list(self.teacher.classes) or self.teacher.num_classes
        if theirs not in (list(classes), len(classes)):
            raise ValueError(
                f"the teacher {teacher} tells other classes apart, or in another order: {theirs}; "
                f"expected those of the data, {list(classes)}"
            )

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Return the loss of a batch: labels, and the teacher's probabilities."""
        images, mask = batch["image"], batch["mask"]
        logits = self.net.logits(images)
        labeled = self.training_loss(logits, mask)
        soft = self.teacher_loss(logits, images, mask != VOID)
        if unlabeled := batch.get("unlabeled"):
            images = unlabeled["image"]
            everywhere = torch.ones_like(images[:, 0], dtype=torch.bool)
            soft = soft + self.teacher_loss(self.net.logits(images), images, everywhere)
        loss = labeled + self.soft_weight * self.temperature**2 * soft
        self.log("train/loss", loss, batch_size=len(batch["id"]), prog_bar=True)
        parts = {"train/labeled_loss": labeled, "train/soft_loss": soft}
        self.log_dict(parts, batch_size=len(batch["id"]))
        return loss

    def teacher_loss(self, logits: ScaleLogits, images: Tensor, counts: Tensor) -> Tensor:
        """Return the cross-entropy of logits with the teacher's probabilities, both by T.

        Args:
            logits: of the network.
            images: (B,3,H,W) uint8 RGB.
            counts: (B,H,W) bool, the pixels that count.
        """
        with torch.no_grad():
            target = (self.teacher.eval()(images) / self.temperature).softmax(1)
        softer = ScaleLogits(
            logits.fused / self.temperature, [x / self.temperature for x in logits.at_scales]
        )
        align = self.net.align_corners
        return soft_loss(softer, target, counts, align_corners=align, size=self.loss_size)
