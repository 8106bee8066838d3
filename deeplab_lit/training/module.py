"""DeepLabv2 as a LightningModule: network, loss, optimizer, schedule, metric."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from deeplab_lit import __version__
from deeplab_lit.data import DataError
from deeplab_lit.loading import DataModule
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.feature_cache import FeatureCache
from deeplab_lit.network.multiscale import ScaleLogits
from deeplab_lit.network.weights.start import initialize
from deeplab_lit.runs.checkpoints import check_monitors
from deeplab_lit.runs.provenance import UNKNOWN, Provenance
from deeplab_lit.scoring.evaluation import ScoredNetwork
from deeplab_lit.training.cached_features import (
    cached_layers,
    check_comes_again,
    check_whole_weights,
)
from deeplab_lit.training.divergence import (
    Stuck,
    all_finite,
    check_collapse,
    check_share,
    diverged,
    loss_of,
    watch,
)
from deeplab_lit.training.loss import LossSize, check_loss, deeplab_loss
from deeplab_lit.training.losses import Loss
from deeplab_lit.training.optimizer import (
    MOMENTUM,
    OptimizerFactory,
    build_optimizer,
    check_aux_head,
    check_rates,
    freeze_parts,
    parameter_groups,
)
from deeplab_lit.training.progress import log_interval
from deeplab_lit.training.same_training import check_same_training, plain_values, trained_with
from deeplab_lit.training.schedule import (
    Policy,
    PolicyName,
    build_schedule,
    check_policy,
    check_steps_of_batch,
    finite_steps,
)
from deeplab_lit.types import Classes, path_of

AUX_WEIGHT = 0.1  # AdaptSegNet's


class DeepLabModule(ScoredNetwork):
    """DeepLabv2 and its training.

    Methods to override in a subclass (`--model my.Module`), from small to large: `training_loss`,
    `parameter_groups`, `configure_optimizers`, `training_step`. Arguments of the subclass's
    `__init__` are options of the command line beside these. For several optimizers there are
    `with_schedule`, `step_uncounted` and `step_schedules`. Modules beside the network are in
    checkpoints too, and no other command takes them for it.

    Args:
        classes: name → RGB color of each class, in the order of the class indices.
        weights: what training starts from: "imagenet" (torchvision's, of the backbone; downloaded
            on first use), "none" (random), published ones by name (convert --list), or the path of
            a weight file, of ours or of another project.
        loss: of one scale: Balanced, ClassWeighted, OHEM (`training/losses.py`), or an nn.Module
            of your own. None: the authors' cross-entropy.
        loss_size: where logits and labels meet: "grid", the authors' every eighth pixel, or
            "image", logits brought to the labels' size.
        aux_weight: of the auxiliary head's loss, with `aux_head`, beside the network's own.
        optimizer: of the parameter groups, by its name in torch.optim or its class path; its
            options follow, as `--model.optimizer.betas`. None: SGD with `momentum`.
        lr: base learning rate. The paper: 2.5e-4 for ResNet-101, 1e-3 for VGG-16, both for a total
            batch of 10 images.
        momentum: of the default optimizer.
        weight_decay: of all weights and of trained normalization, not of convolutions' biases.
        lr_policy: how the learning rate falls, by optimizer step: "poly", "step", the first
            version's (DeepLabv2, Table 2), or a subclass of `training/schedule.py`'s Policy.
        poly_power: poly: it falls as (1 − step/steps)^power.
        step_size: step: it stays the same for so many optimizer steps (None: a third of the
            training's, as the paper's 2,000 of 6,000), ...
        step_factor: ... and is then multiplied by this.
        schedule_steps: length of the policy in optimizer steps, where the training is to end
            before it does. None: the training's.
        warmup_steps: optimizer steps in which the learning rate rises linearly to the policy's.
        head_lr_mult: the head's weights learn at this multiple of lr.
        bias_lr_mult: biases learn at this multiple of their weights' rate; PyTorch's usual is 1.
        bias_weight_decay: biases have weight decay too.
        freeze: parts of the network that do not learn, normalization statistics included:
            "backbone", or a list of parts, like [conv1, bn1, layer1].
        feature_cache: with freeze: a folder in which to keep what the frozen first layers make of
            each image, for later epochs and other trainings (`training/cached_features.py`).
        collapse_share: end a training in which one class swallows more than this share of the
            other classes' pixels, validation after validation (`training/divergence.py`); 1 never.
        compile: compile backbone and head with torch.compile when training starts.
        network: of DeepLabV2.

    Attributes:
        net: the network.
        classes: as the argument.
        evaluation: how it is evaluated; may be changed at any time.
        scores: of the last validation.
        provenance: of the weights; written into checkpoints. None before there are any.
        needs_unlabeled: of a class: whether it trains with images without labels too.
    """

    needs_unlabeled = False

    def __init__(
        self,
        classes: Classes,
        *,
        weights: str = "imagenet",
        loss: Loss | nn.Module | None = None,
        loss_size: LossSize = "grid",
        aux_weight: float = AUX_WEIGHT,
        optimizer: OptimizerFactory | None = None,
        lr: float = 2.5e-4,
        momentum: float = MOMENTUM,
        weight_decay: float = 5e-4,
        lr_policy: PolicyName | Policy = "poly",
        poly_power: float = 0.9,
        step_size: int | None = None,
        step_factor: float = 0.1,
        schedule_steps: int | None = None,
        warmup_steps: int = 0,
        head_lr_mult: float = 10.0,
        bias_lr_mult: float = 2.0,
        bias_weight_decay: bool = False,
        freeze: str | list[str] | None = None,
        feature_cache: str | None = None,
        collapse_share: float = 0.99,
        compile: bool = False,
        **network,
    ) -> None:
        check_rates(lr, momentum, weight_decay, head_lr_mult, bias_lr_mult, aux_weight)
        if aux_weight != AUX_WEIGHT and not network.get("aux_head"):
            raise ValueError(
                f"aux_weight is {aux_weight}, but there is no auxiliary head: set --model.aux_head "
                "true, or leave it out"
            )
        check_share(collapse_share)
        policy = {"poly_power": poly_power, "step_size": step_size, "step_factor": step_factor}
        check_policy(lr_policy, policy, warmup_steps, schedule_steps)
        # a default in `get` would be taken for an option of any type: the parser reads this line
        counts_batches = network.get("norm") not in (None, "frozen")
        if compile and network.get("gradient_checkpointing") and counts_batches:
            raise ValueError(
                "torch.compile cannot recompute trained normalization: leave out compile or "
                "gradient_checkpointing, or set norm frozen"
            )
        check_loss(loss, loss_size, list(classes))
        super().__init__(DeepLabV2(len(classes), **network), classes)
        self.save_hyperparameters(logger=False, ignore=["loss", "optimizer"])
        for part in self.hparams.keys() & {"backbone", "head"}:  # a class goes by its name in files
            self.hparams[part] = path_of(self.hparams[part])
        plain_values(self.hparams)  # refuses now what no checkpoint could hold
        self.frozen_parts = freeze_parts(self.net, freeze)
        self.feature_cache = feature_cache
        self.cached_layers = (
            []
            if feature_cache is None
            else cached_layers(self.net, self.frozen_parts, compile=compile)
        )
        self.loss = loss
        self.loss_size, self.aux_weight = loss_size, aux_weight
        self.stuck = Stuck()
        self.provenance: Provenance | None = None
        self._weights, self._compile, self._collapse_share = weights, compile, collapse_share
        self._rates: dict[str, Any] = {
            "lr": lr, "weight_decay": weight_decay, "head_lr_mult": head_lr_mult,
            "bias_lr_mult": bias_lr_mult, "bias_weight_decay": bias_weight_decay,
        }  # fmt: skip
        self._optimizer, self._momentum = optimizer, momentum
        self._policy, self._policy_options, self._warmup_steps = lr_policy, policy, warmup_steps
        self._schedule_steps = schedule_steps
        self._label_values: dict[str, int] | None = None
        self._step_begun: int | None = None  # steps done when the batch came
        self._trained_with = trained_with(self, loss, optimizer, momentum, lr_policy)

    def initialize(self) -> Provenance:
        """Load the weights that training starts from, unless there are some already.

        Returns:
            Where the weights come from.

        Raises:
            WeightsError: they cannot be had, or do not fit.
        """
        if self.provenance is None:
            source = initialize(self.net, self._weights, self.classes)
            self.provenance = Provenance.from_weights(self._weights, source)
            if self._weights == "none" and self.frozen_parts:
                rank_zero_warn("--model.freeze keeps random weights: --model.weights is none")
        return self.provenance

    def set_origin(self, provenance: Provenance, label_values: dict[str, int] | None) -> None:
        """Set what checkpoints say of where they come from.

        Args:
            provenance: of the weights, the data of this training included.
            label_values: value of each class in the data's label files, by name; None: not known.
        """
        self.provenance, self._label_values = provenance, label_values

    def record_data(self, data: DataModule) -> None:
        """Record the data of a training in what checkpoints say of where they come from.

        Values of classes are those of the label files trained on, not of `mask_dir`.

        Args:
            data: of the training.

        Raises:
            DataError: the training split does not exist, or has no labels; or this training needs
                images without labels too, and there are none; or its images do not come again
                as they are, for a `feature_cache`.
        """
        if self.needs_unlabeled and data.unlabeled is None:
            raise DataError(
                f"{type(self).__name__} needs --unlabeled_data: the data set whose images it "
                "learns from without labels, as --unlabeled_data Images --unlabeled_data.root DIR"
            )
        if self.feature_cache is not None:
            check_comes_again(data)
        train, unlabeled, names = data.train, data.unlabeled, list(self.classes)
        values = train.label_values()
        provenance = self.initialize().extended(
            __version__,
            train.training_label(),
            unlabeled=[] if unlabeled is None else [unlabeled.training_label()],
        )
        self.set_origin(provenance, {names[index]: value for index, value in values.items()})

    def setup(self, stage: str) -> None:
        """Compile the network, if asked to, before a run."""
        if stage == "fit" and self._compile:
            self.net.compile()

    def on_fit_start(self) -> None:
        """Load the initial weights, unless a checkpoint has been loaded; record the data."""
        data = self.trainer.datamodule  # type: ignore[attr-defined] # set when training starts
        if isinstance(data, DataModule):
            self.record_data(data)
        else:  # batches of which nothing is known
            self.set_origin(self.initialize().extended(__version__, UNKNOWN), self._label_values)
        if self.feature_cache is not None:  # by now the weights are those that stay
            check_whole_weights(self.trainer.strategy)
            self.net.backbone.cache = FeatureCache(self.feature_cache, self.cached_layers)

    def on_fit_end(self) -> None:
        """Leave the network as others expect it: whoever uses it now may show it any image."""
        self.net.backbone.cache = None

    def on_train_start(self) -> None:
        """Keep frozen parts, with their statistics and dropout, as they are in evaluation."""
        for part in self.frozen_parts:
            part.eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where weights come from, how labels count, how long nothing has been learned.

        Hyper-parameters that are objects stay out: a checkpoint is read as plain data.
        """
        if self.provenance is not None:
            checkpoint["provenance"] = self.provenance.as_dict()
        if self._label_values is not None:
            checkpoint["label_values"] = self._label_values
        checkpoint["stuck"] = self.stuck._asdict()
        checkpoint["trained_with"] = self._trained_with
        checkpoint["hyper_parameters"] = plain_values(checkpoint.get("hyper_parameters", {}))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting; earlier checkpoints say nothing of it."""
        self.check_checkpoint(checkpoint)
        self.stuck = Stuck(**checkpoint.get("stuck", {}))
        if self.provenance is None:
            self.set_origin(Provenance.from_checkpoint(checkpoint), checkpoint.get("label_values"))

    def check_checkpoint(self, checkpoint: Mapping[str, Any], path: str = "the checkpoint") -> None:
        """Refuse a checkpoint of another module, loss, optimizer or policy of one's own.

        Args:
            checkpoint: its content.
            path: of the checkpoint, for the message.

        Raises:
            UserError: says which, and what to do.
        """
        check_same_training(checkpoint, self._trained_with, path)

    def training_loss(self, logits: ScaleLogits, mask: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar: the sum over all scales and their maximum.

        Args:
            logits: of the network, at each scale (B,C,h,w) and fused.
            mask: (B,H,W) uint8, class indices and 255 for void.
        """
        return deeplab_loss(
            logits, mask, self.loss, align_corners=self.net.align_corners, size=self.loss_size
        )

    def labeled_loss(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the `training_loss` of images, with that of the auxiliary head where there is one.

        Args:
            images: (B,3,H,W) uint8 RGB.
            mask: (B,H,W) uint8, class indices and 255 for void.
        """
        if self.net.aux_head is None:
            return self.training_loss(self.net.logits(images), mask)
        logits, aux = self.net.logits_and_aux(images)
        return self.training_loss(logits, mask) + self.aux_weight * self.training_loss(aux, mask)

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        loss = self.labeled_loss(batch["image"], batch["mask"])
        self.log("train/loss", loss, batch_size=len(batch["id"]), prog_bar=True)
        return loss

    def on_train_batch_start(self, batch: dict, batch_idx: int) -> None:
        """Log the learning rate of every parameter group that has a name."""
        self._step_begun = self.global_step
        for optimizer in self.trainer.optimizers:
            named = [group for group in optimizer.param_groups if "name" in group]
            self.log_dict({f"lr/{group['name']}": group["lr"] for group in named})

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Refuse a first step in which the auxiliary head has no part."""
        if self.global_step == 0:
            check_aux_head(self.net, optimizer, type(self).__name__)

    def on_train_batch_end(self, outputs: Any, batch: dict, batch_idx: int) -> None:
        """Stop where training on is no use; looked at now and then, since looking waits.

        Raises:
            SeveralStepsError: a batch has made more than one optimizer step.
            TrainingDiverged: a weight is no number.
        """
        begun, self._step_begun = self._step_begun, None
        if begun is not None:
            check_steps_of_batch(self.global_step - begun, type(self).__name__)
        if self.global_step % log_interval(self.trainer) == 0:
            loss = outputs.get("loss") if isinstance(outputs, dict) else None
            # a step that returns no loss may still have lost the weights
            lost = (loss is None or not torch.isfinite(loss)) and not all_finite(self)
            self._stop_where(lost, math.nan if loss is None else loss.item())

    def _stop_where(self, lost: bool, loss: float) -> None:
        """Stop all processes at once: one alone would leave the others waiting."""
        if self.trainer.strategy.reduce_boolean_decision(lost, all=False):
            raise diverged(loss, self.global_step)

    def on_validation_epoch_end(self) -> None:
        """Score what has been counted, and see whether anything has been learned."""
        super().on_validation_epoch_end()
        if self._counts() and self.scores is not None:
            check_monitors(self.trainer.early_stopping_callbacks, self.trainer.callback_metrics)
            # before the checkpoint is written, which keeps it
            self.stuck = watch(
                self.stuck, self.scores, self._collapse_share, self.global_step, self.count_steps()
            )

    def _counts(self) -> bool:
        return self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

    def on_validation_end(self) -> None:
        """Stop where training on is no use; by now the scores are written."""
        if (scores := self.scores) is None or not self._counts():
            return
        loss = loss_of(scores)
        self._stop_where(not math.isfinite(loss) and not all_finite(self), loss)
        check_collapse(
            self.stuck,
            scores,
            list(self.classes),
            self.global_step,
            self.count_steps(),
            guesses_frequencies=self.loss is None,
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups: name, params, lr, weight_decay."""
        return parameter_groups(self.net, **self._rates)

    def configure_optimizers(self) -> Any:
        """Return the optimizer of the parameter groups, and its schedule by optimizer step."""
        return self.with_schedule(
            build_optimizer(self.parameter_groups(), self._optimizer, self._momentum)
        )

    def with_schedule(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimizer with the training's schedule, for `configure_optimizers`.

        For another optimizer's groups too, a discriminator's say, each from its own base rate.
        """
        schedule = build_schedule(
            optimizer,
            self._policy,
            self._policy_options,
            self._warmup_steps,
            self.count_steps,
            self._schedule_steps,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def step_uncounted(self, optimizer: LightningOptimizer) -> None:
        """Step an optimizer beside the network's, one of `self.optimizers()`.

        Lightning counts every `optimizer.step()` as one of the training's steps, but not this one.
        """
        self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)

    def step_schedules(self) -> None:
        """Move every schedule on by one optimizer step.

        For the end of a `training_step` with manual optimization; else Lightning does it.
        """
        schedules = self.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            if isinstance(schedule, LRScheduler):
                schedule.step()

    def count_steps(self) -> int:
        """Return the optimizer steps of the whole training.

        Raises:
            ValueError: the training has no end.
        """
        return finite_steps(self.trainer.estimated_stepping_batches, self._policy)
