"""DeepLabv2 as a LightningModule: network, loss, optimizer, schedule, metric."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.start import initialize
from deeplab_lit.runs.monitors import check_monitors
from deeplab_lit.runs.provenance import of_start
from deeplab_lit.scoring.evaluation import Evaluation
from deeplab_lit.scoring.metric import Scores, SegmentationScores
from deeplab_lit.training.divergence import (
    Stuck,
    all_finite,
    check_collapse,
    diverged,
    watch,
)
from deeplab_lit.training.loss import PixelLoss, deeplab_loss
from deeplab_lit.training.optimizer import build_sgd
from deeplab_lit.training.schedule import Policy, check_policy, poly_schedule, step_schedule
from deeplab_lit.types import Classes


class DeepLabModule(LightningModule):
    """DeepLabv2 and its training.

    Args:
        classes: name → RGB color of each class, in the order of the class indices.
        weights: what training starts from: "imagenet" (torchvision's, of the backbone; downloaded
            on first use), "none" (random), or the path of a weight file, of ours or of another
            project.
        lr: base learning rate. The paper: 2.5e-4 for ResNet-101, 1e-3 for VGG-16, both for a total
            batch of 10 images.
        momentum: of SGD.
        weight_decay: of all weights and of trained normalization, not of convolutions' biases.
        lr_policy: how the learning rate falls, by optimizer step: "poly", or "step", the first
            version's (DeepLabv2, Table 2).
        poly_power: poly: it falls as (1 − step/steps)^power.
        step_size: step: it stays the same for so many optimizer steps (null: a third of the
            training's, as the paper's 2,000 of 6,000), ...
        step_factor: ... and is then multiplied by this.
        head_lr_mult: the head's weights learn at this multiple of lr, its biases at twice that.
        collapse_share: end a training in which one class swallows more than this share of the
            other classes' pixels, validation after validation (`training/divergence.py`); 1 never.
        compile: compile backbone and head with torch.compile when training starts.
        network: of DeepLabV2.

    Attributes:
        net: the network.
        evaluation: how it is evaluated; may be changed at any time.
        scores: of the last validation.
        provenance: of the weights; written into checkpoints. null before `initialize`.
        label_values: value of each class in the data's label files, by name; written into
            checkpoints. None: not known.
    """

    def __init__(
        self,
        classes: Classes,
        *,
        weights: str = "imagenet",
        lr: float = 2.5e-4,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        lr_policy: Policy = "poly",
        poly_power: float = 0.9,
        step_size: int | None = None,
        step_factor: float = 0.1,
        head_lr_mult: float = 10.0,
        collapse_share: float = 0.99,
        compile: bool = False,
        **network,
    ) -> None:
        super().__init__()
        in_range = {
            "lr": ("0 or more", 0 <= lr < math.inf),
            "momentum": ("0 or more, below 1", 0 <= momentum < 1),
            "weight_decay": ("0 or more", 0 <= weight_decay < math.inf),
            "head_lr_mult": ("0 or more", 0 <= head_lr_mult < math.inf),
            "collapse_share": ("more than 0, at most 1", 0 < collapse_share <= 1),
        }
        for name, (expected, right) in in_range.items():
            if not right:
                raise ValueError(f"{name} is out of range: {locals()[name]}, expected {expected}")
        if max(2 * lr * max(head_lr_mult, 1), weight_decay) > torch.finfo(torch.float32).max:
            raise ValueError(
                f"lr {lr}, head_lr_mult {head_lr_mult} or weight_decay {weight_decay} is out of "
                "range: larger than float32 holds"
            )
        policy = {"poly_power": poly_power, "step_size": step_size, "step_factor": step_factor}
        check_policy(lr_policy, policy)
        if compile and network.get("gradient_checkpointing") and network.get("norm") == "batch":
            raise ValueError(
                "torch.compile cannot recompute trained normalization: leave out compile or "
                "gradient_checkpointing, or set norm frozen"
            )
        self.save_hyperparameters(logger=False)
        self.net = DeepLabV2(len(classes), **network)
        self.metric = SegmentationScores(len(classes))
        self.pixel_loss = PixelLoss()
        self.evaluation = Evaluation()
        self.scores: Scores | None = None
        self.stuck = Stuck()
        self.provenance: dict[str, Any] | None = None
        self.label_values: dict[str, int] | None = None
        self._initialized = False

    def initialize(self) -> None:
        """Load the weights that training starts from, once. Not needed for a run that resumes.

        Raises:
            WeightsError: they cannot be had, or do not fit.
        """
        if not self._initialized:
            source = initialize(self.net, self.hparams.weights, self.hparams.classes)
            self.provenance = of_start(self.hparams.weights, source)
            self._initialized = True

    def setup(self, stage: str) -> None:
        """Compilation, before a run."""
        if stage == "fit" and self.hparams.compile:
            self.net.compile()

    def on_fit_start(self) -> None:
        """Initial weights, unless a checkpoint has been loaded."""
        if self.trainer.ckpt_path is None:
            self.initialize()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say where weights come from, how labels count, how long nothing has been learned."""
        if self.provenance is not None:
            checkpoint["provenance"] = self.provenance
        if self.label_values is not None:
            checkpoint["label_values"] = self.label_values
        checkpoint["stuck"] = self.stuck._asdict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting; earlier checkpoints say nothing of it."""
        self.stuck = Stuck(**checkpoint.get("stuck", {}))

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        logits = self.net.logits(batch["image"])
        loss = deeplab_loss(logits, batch["mask"], align_corners=self.net.align_corners)
        self.log("train/loss", loss, batch_size=len(batch["id"]), prog_bar=True)
        groups = self.optimizers().param_groups
        self.log_dict({f"lr/{group['name']}": group["lr"] for group in groups})
        return loss

    def on_train_batch_end(self, outputs: dict, batch: dict, batch_idx: int) -> None:
        """Stop where training on is no use; looked at now and then, since looking waits."""
        if self.global_step % self.trainer.log_every_n_steps == 0:
            lost = not torch.isfinite(outputs["loss"]) and not all_finite(self.net)
            self._stop_where(lost, outputs["loss"].item())

    def _stop_where(self, lost: bool, loss: float) -> None:
        """On all processes at once: one alone would leave the others waiting."""
        if self.trainer.strategy.reduce_boolean_decision(lost, all=False):
            raise diverged(loss, self.global_step)

    def on_validation_epoch_start(self) -> None:
        """Begin to count, in memory of this process alone: spawned ones share the module's."""
        self.metric.reset()
        self.pixel_loss.reset()

    def validation_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Count a batch; returns the logits (B,C,H,W).

        The labels (B,H,W) are put into the batch for all callbacks that count them: at 2048×1024
        and 19 classes the maximum takes longer than anything else beside the network.
        """
        logits = self.evaluation.logits(self.net, batch)
        batch["labels"] = logits.argmax(dim=1)
        self.metric.update(batch["labels"], batch["mask"])
        self.pixel_loss.update(logits, batch["mask"])
        return logits

    def on_validation_epoch_end(self) -> None:
        """Score what has been counted, on all processes together."""
        self.scores = scores = self.metric.compute()._replace(loss=self.pixel_loss.compute())
        self.metric.reset()
        self.pixel_loss.reset()
        self.log("val/miou", scores.miou, prog_bar=True, sync_dist=True)
        values = scores.named("val", self.hparams.classes)
        del values["val/miou"]
        self.log_dict(values, sync_dist=True)  # they agree; Lightning wants to be told
        if self._counts():
            check_monitors(self.trainer.early_stopping_callbacks, self.trainer.callback_metrics)
            share, steps = self.hparams.collapse_share, self._steps()
            # before the checkpoint is written, which keeps it
            self.stuck = watch(self.stuck, scores, share, self.global_step, steps)

    def _counts(self) -> bool:
        return self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

    def on_validation_end(self) -> None:
        """Stop where training on is no use; by now the scores are written."""
        if not self._counts():
            return
        loss = self.scores.loss
        self._stop_where(not math.isfinite(loss) and not all_finite(self.net), loss)
        check_collapse(
            self.stuck, self.scores, list(self.hparams.classes), self.global_step, self._steps()
        )

    def configure_optimizers(self) -> dict:
        """SGD with the authors' parameter groups, and the learning rate by optimizer step."""
        hp = self.hparams
        optimizer: Optimizer = build_sgd(
            self.net,
            lr=hp.lr,
            momentum=hp.momentum,
            weight_decay=hp.weight_decay,
            head_lr_mult=hp.head_lr_mult,
        )
        if hp.lr_policy == "step":
            size = hp.step_size or max(self._steps() // 3, 1)
            schedule = step_schedule(optimizer, size, hp.step_factor)
        else:
            schedule = poly_schedule(optimizer, self._steps(), hp.poly_power)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < torch.inf:
            raise ValueError(
                f"the {self.hparams.lr_policy} schedule needs to know when training ends: set "
                "--trainer.max_steps or --trainer.max_epochs"
            )
        return steps
