"""AdaptSegNet: adapt a network to another domain by adversarial learning on what it puts out.

Tsai et al., Learning to Adapt Structured Output Space for Semantic Segmentation (arXiv:1802.10349).
A discriminator learns to tell the class probabilities of source images, which have labels, from
those of target images, which have none. The network learns the source's labels, and to be taken for
the source on the target. Details are those of the authors' code (wasidennis/AdaptSegNet,
train_gta2cityscapes_multi.py): layers, Adam, order of the steps, and probabilities that are brought
to the image's size before a discriminator sees them.

Letters: B batch · C classes · H×W image.
"""

from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_lit.errors import UserError
from deeplab_lit.methods.levels import USUAL_AUX, by_level, level_logits, level_probabilities
from deeplab_lit.methods.panel import show_batch
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.types import Classes

Gan = Literal["bce", "ls"]
SOURCE, TARGET = 0.0, 1.0  # what a discriminator is to say
SMALLEST = 32  # pixels: what five convolutions of stride 2 make one of


class Discriminator(nn.Sequential):
    """Five strided convolutions that say of which domain a map is, place by place.

    It computes in float32 also where the network computes in less: its gradients are small, and no
    scaler guards them.

    Args:
        num_classes: C, channels of the map.
    """

    def __init__(self, num_classes: int) -> None:
        widths = (num_classes, 64, 128, 256, 512, 1)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers[:-1])

    def forward(self, maps: Tensor) -> Tensor:
        """Return logits of the target (B,1,⌊H/32⌋,⌊W/32⌋) of maps (B,C,H,W) float32.

        Raises:
            UserError: maps of less than 32 pixels in one direction.
        """
        if min(maps.shape[-2:]) < SMALLEST:
            raise UserError(
                f"a discriminator sees images of {SMALLEST}×{SMALLEST} pixels or more, got "
                f"{maps.shape[-1]}×{maps.shape[-2]}: set a larger --loader.crop_size or "
                "--loader.unlabeled_crop_size"
            )
        with torch.autocast(maps.device.type, enabled=False):
            return super().forward(maps)


def gan_loss(logits: Tensor, domain: float, gan: Gan) -> Tensor:
    """Return how far a discriminator is from saying `domain`, a mean over all places.

    Args:
        logits: what it says.
        domain: SOURCE or TARGET.
        gan: "bce": binary cross-entropy; "ls": squared difference.
    """
    truth = torch.full_like(logits, domain)
    if gan == "ls":
        return F.mse_loss(logits, truth)
    return F.binary_cross_entropy_with_logits(logits, truth)


class AdaptSegNet(DeepLabModule):
    """AdaptSegNet: single-level, or with `--model.aux_head true` multi-level.

    Each step takes a batch of --data, the source, with labels, and one of --unlabeled_data, the
    target, without. Normalization that is not frozen adapts as well: target images go through the
    network in training mode and move its statistics, whatever the adversarial loss does.

    Logged are train/loss, all that the network minimizes; train/source_loss, its part with labels;
    and of each level train/adversarial_loss_… and train/discriminator_loss_…, without weights. With
    "bce" a discriminator that cannot tell the domains apart has log 2 = 0.693.

    Args:
        lambda_adv_main: weight of the adversarial loss on the network's head. The authors' code
            has 0.001; its README says 0.0005 with PyTorch 0.4 or later; with "ls" 0.01.
        lambda_adv_aux: the same on the auxiliary head: 0.0002, and 0.00005.
        gan: how discriminators learn and are fooled: "bce" (binary cross-entropy) or "ls" (least
            squares, LS-GAN).
        discriminator_lr: learning rate of each discriminator's Adam; falls as the network's does.
    """

    needs_unlabeled = True

    def __init__(
        self,
        classes: Classes,
        *,
        lambda_adv_main: float = 0.001,
        lambda_adv_aux: float = USUAL_AUX,
        gan: Gan = "bce",
        discriminator_lr: float = 1e-4,
        **kwargs,
    ) -> None:
        if gan not in get_args(Gan):
            raise ValueError(f"gan must be one of {', '.join(get_args(Gan))}, got {gan!r}")
        if not 0 <= discriminator_lr < 1:
            raise ValueError(f"discriminator_lr is out of range: {discriminator_lr}, expected 0…1")
        super().__init__(classes, **kwargs)
        self.automatic_optimization = False
        self.lambdas = by_level(self.net, "lambda_adv", lambda_adv_main, lambda_adv_aux)
        self.gan, self.discriminator_lr = gan, discriminator_lr
        # frozen but in their own turn: DDP, which looks when training begins, leaves them to us
        self.discriminators = nn.ModuleDict(
            {level: Discriminator(len(classes)).requires_grad_(False) for level in self.lambdas}
        )

    def configure_optimizers(self) -> Any:
        """Return the network's optimizer and one for each discriminator, with their schedules."""
        optimizers = [super().configure_optimizers()]
        for level, discriminator in self.discriminators.items():
            group = {"name": f"discriminator_{level}", "params": list(discriminator.parameters())}
            adam = torch.optim.Adam([group], lr=self.discriminator_lr, betas=(0.9, 0.99))
            optimizers.append(self.with_schedule(adam))
        return optimizers

    def on_fit_start(self) -> None:
        """Refuse strategies that split a network over processes; go on as ever."""
        if not isinstance(self.trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise UserError(
                f"{type(self).__name__} trains on one process, or on several by --trainer.strategy "
                f"ddp; this run has {type(self.trainer.strategy).__name__}"
            )
        super().on_fit_start()

    def maps(self, probabilities: Tensor) -> Tensor:
        """Return what a discriminator sees of class probabilities (B,C,H,W): all of them."""
        return probabilities

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Train the network and the discriminators on a batch of each domain."""
        network = self.optimizers()[0]  # type: ignore[index] # the one whose steps count
        adams = self.trainer.optimizers[1:]
        source_images, target_images = batch["image"], batch["unlabeled"]["image"]
        levels = self.discriminators.items()

        # 1. The network learns the labels of the source, ...
        network.zero_grad()
        logits = level_logits(self.net, source_images)
        source = level_probabilities(self.net, logits, source_images)
        source_loss = self.training_loss(logits["main"], batch["mask"])
        if "aux" in logits:
            aux_loss = self.training_loss(logits["aux"], batch["mask"])
            source_loss = source_loss + self.aux_weight * aux_loss
        self.manual_backward(source_loss)
        losses = {"source_loss": source_loss}

        # 2. ... and to be taken for the source on the target.
        target_logits = level_logits(self.net, target_images)
        target = level_probabilities(self.net, target_logits, target_images)
        adversarial_loss = torch.zeros_like(source_loss)
        for level, discriminator in levels:
            loss = gan_loss(discriminator(self.maps(target[level])), SOURCE, self.gan)
            adversarial_loss = adversarial_loss + self.lambdas[level] * loss
            losses[f"adversarial_loss_{level}"] = loss
        self.manual_backward(adversarial_loss)

        # 3. Each discriminator learns to tell the two apart; detached, the network learns nothing.
        for (level, discriminator), adam in zip(levels, adams, strict=True):
            discriminator.requires_grad_(True)
            adam.zero_grad()
            on_source = gan_loss(discriminator(self.maps(source[level].detach())), SOURCE, self.gan)
            on_target = gan_loss(discriminator(self.maps(target[level].detach())), TARGET, self.gan)
            loss = (on_source + on_target) / 2
            loss.backward()  # manual_backward is for what DDP and a gradient scaler know
            discriminator.requires_grad_(False)
            for parameter in discriminator.parameters():
                self.trainer.strategy.reduce(parameter.grad, reduce_op="mean")  # in place
            losses[f"discriminator_loss_{level}"] = loss
        show_batch(self, batch, batch_idx, target=target["main"])

        # 4. All step at once.
        network.step()
        for adam in adams:
            adam.step()  # PyTorch's own: not counted as a step of the training, nothing unscaled
        self.step_schedules()
        self._share_statistics()

        total = (source_loss + adversarial_loss).detach()
        images = len(batch["id"])
        self.log("train/loss", total, batch_size=images, prog_bar=True)
        self.log_dict({f"train/{k}": v for k, v in losses.items()}, batch_size=images)
        return total

    def _share_statistics(self) -> None:
        """Give all processes the first one's statistics, as DDP does where Lightning optimizes."""
        if self.trainer.world_size == 1:
            return
        for layer in self.net.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
                for statistic in layer.buffers():
                    torch.distributed.broadcast(statistic, src=0)
