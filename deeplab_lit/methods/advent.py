"""ADVENT: adapt a network to another domain by making it certain of what it sees there.

Vu et al., ADVENT: Adversarial Entropy Minimization for Domain Adaptation in Semantic Segmentation
(arXiv:1811.12833). Images of the target, which have no labels, get class probabilities p; that they
are uncertain is seen in their weighted self-information I = −p·log p. MinEnt minimizes its sum, the
entropy; AdvEnt trains a discriminator on the map I, as AdaptSegNet does on p. Formulas and weights
are those of the authors' code (valeoai/ADVENT, utils/func.py and utils/loss.py).

Letters: B batch · C classes · H×W image.
"""

import math

from torch import Tensor

from deeplab_lit.methods.adaptsegnet import AdaptSegNet
from deeplab_lit.methods.levels import USUAL_AUX, by_level, level_logits, level_probabilities
from deeplab_lit.methods.panel import show_batch
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.types import Classes


def weighted_self_information(probabilities: Tensor) -> Tensor:
    """Return −p·log₂ p / log₂ C of class probabilities p (B,C,H,W), of the same shape.

    Over the classes of a pixel it sums to the entropy, from 0 to 1.
    """
    information = -probabilities * (probabilities + 1e-30).log2()
    return information / math.log2(probabilities.shape[1])


def entropy_loss(probabilities: Tensor) -> Tensor:
    """Return the mean entropy of pixels' class probabilities (B,C,H,W), a scalar from 0 to 1."""
    return weighted_self_information(probabilities).sum(1).mean()


class MinEnt(DeepLabModule):
    """Minimize the entropy of target images directly, without a discriminator.

    Each step takes a batch of --data, the source, with labels, and one of --unlabeled_data, the
    target, without; activations of both are in memory at once. Normalization that is not frozen
    adapts as well: target images go through the network in training mode and move its statistics.

    Logged are train/loss, all that is minimized; train/source_loss, its part with labels; and of
    each level train/entropy_loss_…, without weights: 1 where every class is as likely, 0 where all
    is certain.

    Args:
        lambda_ent_main: weight of the entropy of the network's head; the authors': 0.001.
        lambda_ent_aux: the same of the auxiliary head, with `--model.aux_head true`: 0.0002.
    """

    needs_unlabeled = True

    def __init__(
        self,
        classes: Classes,
        *,
        lambda_ent_main: float = 0.001,
        lambda_ent_aux: float = USUAL_AUX,
        **kwargs,
    ) -> None:
        super().__init__(classes, **kwargs)
        self.lambdas = by_level(self.net, "lambda_ent", lambda_ent_main, lambda_ent_aux)

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Return the loss of a batch: labels of the source, and certainty on the target."""
        loss = source_loss = self.labeled_loss(batch["image"], batch["mask"])
        losses = {"source_loss": source_loss}

        target_images = batch["unlabeled"]["image"]
        logits = level_logits(self.net, target_images)
        target = level_probabilities(self.net, logits, target_images)
        for level, weight in self.lambdas.items():
            losses[f"entropy_loss_{level}"] = entropy_loss(target[level])
            loss = loss + weight * losses[f"entropy_loss_{level}"]

        images = len(batch["id"])
        self.log("train/loss", loss, batch_size=images, prog_bar=True)
        self.log_dict({f"train/{k}": v for k, v in losses.items()}, batch_size=images)
        show_batch(self, batch, batch_idx, target=target["main"])
        return loss


class AdvEnt(AdaptSegNet):
    """AdaptSegNet whose discriminators see how certain the network is of each class.

    All else is as there, the authors' weights included: 0.001 for the network's head, 0.0002 for
    the auxiliary one.
    """

    def maps(self, probabilities: Tensor) -> Tensor:
        """Return what a discriminator sees of class probabilities: their self-information."""
        return weighted_self_information(probabilities)
