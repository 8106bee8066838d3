"""Self-training: learn the target from the network's predictions on it, where it is sure of them.

Lee, Pseudo-Label (ICML workshop 2013); for other domains CBST (Zou et al., arXiv:1810.07911) and
the last step of BDL (Li et al., arXiv:1904.10620). Three commands: train on the source, make
pseudo-labels of the target's images, and train on both:

    fit --data GTA5 --data.root gta5 --val_data Cityscapes --val_data.root cityscapes
    predict --ckpt_path last --images cityscapes/leftImg8bit/train --out pseudo --pseudo_labels
        --min_confidence bdl
    fit --model deeplab_lit.methods.SelfTraining … --unlabeled_data Cityscapes
        --unlabeled_data.root cityscapes --unlabeled_data.mask_dir pseudo/masks

The second training starts anew, as BDL's does, or from the first: --model.weights its checkpoint,
as CBST's. The last two commands are repeated for further rounds.
"""

import math

from torch import Tensor

from deeplab_lit.data import DataError
from deeplab_lit.loading import DataModule
from deeplab_lit.methods.panel import show_batch
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.types import VOID, Classes


class SelfTraining(DeepLabModule):
    """Minimize the loss of the source's labels and that of the target's pseudo-labels.

    Each step takes a batch of --data, the source, and one of --unlabeled_data, the target, whose
    `mask_dir` has the pseudo-labels; activations of both are in memory at once. Void pixels, of
    which the first network was not sure, do not count, and a batch of nothing else gives 0.

    Logged are train/loss, the sum; train/source_loss and train/target_loss, its parts without
    weight; and train/labeled_share, the share of the target's pixels that have a pseudo-label.

    Args:
        target_weight: of the loss on the target. BDL's and CBST's: 1.
    """

    needs_unlabeled = True

    def __init__(self, classes: Classes, *, target_weight: float = 1.0, **kwargs) -> None:
        if not 0 <= target_weight < math.inf:
            raise ValueError(f"target_weight is out of range: {target_weight}, expected 0 or more")
        super().__init__(classes, **kwargs)
        self.target_weight = target_weight

    def record_data(self, data: DataModule) -> None:
        """Record the data of a training; refuse unlabeled images without pseudo-labels.

        Raises:
            DataError: there are none, or no folder of them is given.
        """
        if data.unlabeled is not None and data.unlabeled.mask_dir is None:
            raise DataError(
                f"{type(self).__name__} learns from pseudo-labels: give their folder as "
                "--unlabeled_data.mask_dir; predict --pseudo_labels makes them, in masks/ of its "
                "--out"
            )
        super().record_data(data)

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Return the loss of a batch: labels of the source, pseudo-labels of the target."""
        target = batch["unlabeled"]
        source_loss = self.labeled_loss(batch["image"], batch["mask"])
        target_loss = self.labeled_loss(target["image"], target["mask"])
        loss = source_loss + self.target_weight * target_loss
        parts = {
            "train/source_loss": source_loss,
            "train/target_loss": target_loss,
            "train/labeled_share": (target["mask"] != VOID).float().mean(),
        }
        self.log("train/loss", loss, batch_size=len(batch["id"]), prog_bar=True)
        self.log_dict(parts, batch_size=len(batch["id"]))
        show_batch(self, batch, batch_idx, target=target["mask"])
        return loss
