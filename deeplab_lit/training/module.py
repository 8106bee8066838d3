"""DeepLabv2 as a LightningModule: network, loss, optimizer, schedule, metric."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.initialise import initialise
from deeplab_lit.training.divergence import check_collapse, check_finite
from deeplab_lit.training.evaluation import Evaluation
from deeplab_lit.training.loss import deeplab_loss
from deeplab_lit.training.metric import Scores, SegmentationScores
from deeplab_lit.training.optimizer import build_sgd
from deeplab_lit.training.provenance import of_start
from deeplab_lit.training.schedule import Policy, check_policy, poly_schedule, step_schedule


class DeepLabModule(LightningModule):
    """DeepLabv2 and its training.

    Args:
        classes: name → RGB colour of each class, in the order of the class indices.
        weights: what training starts from: "imagenet" (torchvision's, of the backbone; downloaded
            on first use), "none" (random), or the path of a weight file, of ours or of another
            project.
        lr: base learning rate. The paper: 2.5e-4 for ResNet-101, 1e-3 for VGG-16, both for a total
            batch of 10 images.
        momentum: of SGD.
        weight_decay: of all weights and of trained normalisation, not of convolutions' biases.
        lr_policy: how the learning rate falls, by optimizer step: "poly", or "step", the first
            version's (DeepLabv2, Table 2).
        poly_power: poly: it falls as (1 − step/steps)^power.
        step_size: step: it stays the same for so many optimizer steps (null: a third of the
            training's, as the paper's 2,000 of 6,000), ...
        step_factor: ... and is then multiplied by this.
        head_lr_mult: the head's weights learn at this multiple of lr, its biases at twice that.
        collapse_share: stop when one class takes more than this share of a whole validation's
            predictions, and has less in the truth; 1 never stops.
        compile: compile backbone and head with torch.compile when training starts.
        network: of DeepLabV2.

    Attributes:
        net: the network.
        evaluation: how it is evaluated; may be changed at any time.
        scores: of the last validation.
        provenance: of the weights; written into checkpoints. null before `initialise`.
        label_values: value of each class in the data's label files, by name; written into
            checkpoints. None: not known.
    """

    def __init__(
        self,
        classes: dict[str, tuple[int, int, int]],
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
            "lr": lr >= 0,
            "momentum": 0 <= momentum < 1,
            "weight_decay": weight_decay >= 0,
            "head_lr_mult": head_lr_mult >= 0,
            "collapse_share": 0 < collapse_share <= 1,
        }
        for name, right in in_range.items():
            if not right:
                raise ValueError(f"{name} is out of range: {locals()[name]}")
        policy = {"poly_power": poly_power, "step_size": step_size, "step_factor": step_factor}
        check_policy(lr_policy, policy)
        if compile and network.get("gradient_checkpointing") and network.get("norm") == "batch":
            raise ValueError(
                "torch.compile cannot recompute trained normalisation: leave out compile or "
                "gradient_checkpointing, or set norm frozen"
            )
        self.save_hyperparameters(logger=False)
        self.net = DeepLabV2(len(classes), **network)
        self.metric = SegmentationScores(len(classes))
        self.evaluation = Evaluation()
        self.scores: Scores | None = None
        self.provenance: dict[str, Any] | None = None
        self.label_values: dict[str, int] | None = None
        self._initialised = False

    def initialise(self) -> None:
        """Load the weights that training starts from, once. Not needed for a run that resumes.

        Raises:
            WeightsError: they cannot be had, or do not fit.
        """
        if not self._initialised:
            source = initialise(self.net, self.hparams.weights, self.hparams.classes)
            self.provenance = of_start(self.hparams.weights, source)
            self._initialised = True

    def setup(self, stage: str) -> None:
        """Compilation, before a run."""
        if stage == "fit" and self.hparams.compile:
            self.net.compile()

    def on_fit_start(self) -> None:
        """Initial weights, unless a checkpoint has been loaded."""
        if self.trainer.ckpt_path is None:
            self.initialise()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say in the file where its weights come from, and how the data's labels count."""
        if self.provenance is not None:
            checkpoint["provenance"] = self.provenance
        if self.label_values is not None:
            checkpoint["label_values"] = self.label_values

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
            check_finite(outputs["loss"], self.global_step)

    def on_validation_epoch_start(self) -> None:
        """Begin to count, in memory of this process alone: spawned ones share the module's."""
        self.metric.reset()

    def validation_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Count a batch; returns the logits (B,C,H,W).

        The labels (B,H,W) are put into the batch for all callbacks that count them: at 2048×1024
        and 19 classes the maximum takes longer than anything else beside the network.
        """
        logits = self.evaluation.logits(self.net, batch)
        batch["labels"] = logits.argmax(dim=1)
        self.metric.update(batch["labels"], batch["mask"])
        return logits

    def on_validation_epoch_end(self) -> None:
        """Score what has been counted, on all processes together."""
        self.scores = scores = self.metric.compute()
        self.metric.reset()
        self.log("val/miou", scores.miou, prog_bar=True, sync_dist=True)
        values = scores.named("val", self.hparams.classes)
        del values["val/miou"]
        self.log_dict(values, sync_dist=True)  # they agree; Lightning wants to be told

    def on_validation_end(self) -> None:
        """Stop where training on is no use; by now the scores are written."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking and self.scores:
            share = self.hparams.collapse_share
            check_collapse(self.scores, self.hparams.classes, share, self.global_step)

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
