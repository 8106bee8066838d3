"""The command line of `fit` and `validate`: one LightningCLI, run folders, errors in a sentence."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit import __version__
from deeplab_lit.agreement import (
    check_classes,
    check_options,
    check_resumable,
    check_training,
    check_unseen,
    refuse_without_data,
    seen_before,
)
from deeplab_lit.crf.options import with_crf_enabled
from deeplab_lit.data import Cityscapes, SegmentationData
from deeplab_lit.data.summary import table
from deeplab_lit.errors import plain_errors
from deeplab_lit.implied import SHAPES, configs_first, flags, implied_config, names_data, value_of
from deeplab_lit.network.weights import WeightsError, read_checkpoint
from deeplab_lit.options import PARSER, add_options
from deeplab_lit.training.band import BandCurve
from deeplab_lit.training.checkpoints import WholeFiles
from deeplab_lit.training.cityscapes_scores import Instances
from deeplab_lit.training.equipment import equip
from deeplab_lit.training.loggers import build_loggers, log_checkpoint
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.training.probabilities import what_decides
from deeplab_lit.training.provenance import completed, of_checkpoint
from deeplab_lit.training.run_config import RunConfig
from deeplab_lit.training.run_folder import (
    claim,
    claim_results,
    last_checkpoint,
    new_run_folder,
)
from deeplab_lit.training.screen import after_fit, after_validate, introduce, say

NO_CHECKPOINT = "validate needs --ckpt_path FILE, a checkpoint that fit wrote"
VERBS = {
    "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
    "validate": {"model", "dataloaders", "datamodule", "weights_only"},
}


class QuietTrainer(Trainer):
    """Lightning's trainer, without a table of its own after a validation."""

    def validate(self, *args: Any, **kwargs: Any) -> list[dict[str, float]]:
        """As the parent."""
        return super().validate(*args, verbose=False, **kwargs)


class DeepLabCLI(LightningCLI):
    """`fit` and `validate`.

    Args:
        verb: which of the two.
        args: command line without the verb; null: the process's own.
    """

    def __init__(self, verb: str, args: ArgsType = None) -> None:
        self.verb = verb
        super().__init__(
            DeepLabModule,
            SegmentationData,
            save_config_callback=RunConfig,
            trainer_class=QuietTrainer,
            trainer_defaults={"enable_model_summary": False, "log_every_n_steps": 10},
            seed_everything_default=0,
            parser_kwargs=PARSER,
            subclass_mode_data=True,
            args=args,
            auto_configure_optimizers=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The verbs, and the arguments of Trainer's methods that the command line leaves out."""
        return VERBS

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What is ours beside trainer, model and data."""
        add_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Put the verb in front; find the data set, the run folder and the checkpoint."""
        self.typed = sys.argv[1:] if args is None else list(args)
        argv = configs_first(with_crf_enabled(self.typed))
        config = implied_config(self.verb, argv)
        if self.verb == "validate" and not ("--ckpt_path" in flags(argv) or names_data(argv)):
            raise WeightsError(NO_CHECKPOINT)
        if self.verb == "validate" and config is None and not names_data(argv):
            refuse_without_data(value_of(argv, "--ckpt_path"))
        if config is not None:
            argv = [f"--config={config}", *argv]
        if config == SHAPES:
            say("No --config and no --data: training on the built-in Shapes set (shapes.yaml).")
        self.config = parser.parse_args([self.verb, *argv])
        options = self.config[self.verb]
        self.allow_seen_split = "--allow_seen_split" in flags(argv)
        options.allow_seen_split = False  # said anew each time: no configuration may keep it
        defaults = vars(parser.parse_args([self.verb, "--data=Shapes"])[self.verb].model)
        self.asked = {
            key: value
            for key, value in vars(options.model).items()
            if value != defaults[key] or f"--model.{key}" in flags(argv)
        }
        runs = Path(options.runs_dir)
        self.experiment = options.experiment or options.data.class_path.rpartition(".")[2].lower()
        self.resumes = self.verb == "fit" and options.ckpt_path == "last"
        if self.resumes:
            options.ckpt_path = str(last_checkpoint(runs, self.experiment, options.run))
            self.folder = Path(options.ckpt_path).parents[1]
        else:
            if self.verb == "validate" and "--run" not in flags(argv):
                options.run = None  # the configuration is that of the training
            suffix = "" if self.verb == "fit" else f"-{self.verb}"
            self.folder = new_run_folder(runs, self.experiment, options.run, suffix)
        self.checkpoint = read_checkpoint(options.ckpt_path) if options.ckpt_path else None
        if self.verb == "validate" and self.checkpoint is None:
            raise WeightsError(NO_CHECKPOINT)

    def before_instantiate_classes(self) -> None:
        """Refuse flags that a checkpoint would override in silence."""
        torch.set_float32_matmul_precision("high")
        step = self.checkpoint["global_step"] if self.checkpoint else 0
        self.save_config_kwargs = {"folder": self.folder, "step": step}
        if self.checkpoint is None:
            return
        config = self.config[self.verb]
        if self.verb == "fit":
            check_resumable(self.checkpoint, config.ckpt_path)
        check_options(self.asked, vars(config.model), config.ckpt_path)

    def instantiate_classes(self) -> None:
        """As the parent; an argument out of range is the user's error, not a crash."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException = error  # the parser wraps it in its own words
            while isinstance(cause.__cause__, ValueError):
                cause = cause.__cause__
            raise MisconfigurationException(str(cause)) from error
        self.model.evaluation = self.config_init[self.verb].eval

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the loggers and callbacks that every run has."""
        config = self.config_init[self.verb]
        about = {"seed": config.seed_everything, "deeplab_lit": __version__}
        if config.ckpt_path:
            about["checkpoint"] = config.ckpt_path
        instances = None
        if self.verb == "validate" and isinstance(self.datamodule, Cityscapes):
            instances = Instances(*self.datamodule.instances(self.datamodule.val_split))
        self.record, callbacks = equip(
            self.verb,
            self.folder,
            about,
            evaluation=config.eval,
            crf=config.crf,
            progress=config.trainer.enable_progress_bar is not False,
            instances=instances,
        )
        kwargs["callbacks"] = callbacks + (config.trainer.callbacks or [])
        if config.checkpoint.dirpath is None:
            config.checkpoint.dirpath = str(self.folder / "checkpoints")
        if isinstance(config.trainer.val_check_interval, int):  # batches, of any epoch
            config.trainer.check_val_every_n_epoch = None
        own = config.trainer.logger
        kwargs["logger"] = build_loggers(
            self.folder,
            experiment=self.experiment,
            job_type=self.verb,
            resume_step=self.checkpoint["global_step"] if self.resumes else None,
            wandb=own in (None, True),
        )
        if own not in (None, True, False):
            kwargs["logger"] += _listed(own)
        kwargs["plugins"] = [*_listed(config.trainer.plugins), WholeFiles()]
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Everything that can be refused before the first step."""
        check_training(
            self.config.fit.trainer,
            self.model.evaluation,
            allow_seen_split=self.allow_seen_split,
        )
        data, path = self.datamodule, self.config.fit.ckpt_path
        if self.checkpoint is None:
            self.model.initialise()
        else:
            check_classes(self.checkpoint, path, data)
            self.model.provenance = of_checkpoint(self.checkpoint)
        self._record_seen(
            seen_before(data, self.model.provenance, path or self.model.hparams.weights)
        )
        self.model.provenance = completed(
            self.model.provenance, __version__, "fit", self.typed, data.label(data.train_split)
        )
        data.preflight("fit")
        if self.trainer.is_global_zero and (labels := data.pseudo_labels()):
            say(table([labels], list(data.classes)), "")
        seen = data.trained_on()
        if seen:
            self.record.about["validation_images_trained_on"] = seen
            say(
                f"WARNING: {seen} of the validation images are trained on too. Their scores say "
                "nothing about new images and compare with no published ones."
            )
        weights = 4 * sum(p.numel() for p in self.model.parameters())
        self._claim(bytes_needed=2 * weights * 3)  # momentum too; best, last, and one in writing
        introduce(
            self.model,
            f"{type(data).__name__}: {len(data.training().ids)} training images "
            f"({data.train_split}), {len(data.split(data.val_split).ids)} validation images "
            f"({data.val_split}), {len(data.classes)} classes",
            f"{self.folder}" + (f", from {self._described()}" if self.checkpoint else ""),
        )

    def before_validate(self) -> None:
        """Everything that can be refused before the first image."""
        options, data = self.config.validate, self.datamodule
        check_classes(self.checkpoint, options.ckpt_path, data)
        self.model.provenance = self.record.about["provenance"] = of_checkpoint(self.checkpoint)
        allowed = self.allow_seen_split
        self._record_seen(
            check_unseen(data, self.model.provenance, options.ckpt_path, allowed=allowed)
        )
        data.preflight("validate")
        if self.model.evaluation.cache_dir is not None:
            self._claim_cache(Path(self.model.evaluation.cache_dir))
        self._claim(bytes_needed=10_000_000)
        image, _ = data.split(data.val_split).read(0)
        evaluation, net = self.model.evaluation, self.model.net
        self.record.about["inference"] = evaluation.settings(net)
        say(f"Network: {evaluation.in_words(net, image.shape[:2])}")

    @rank_zero_only
    def _claim_cache(self, folder: Path) -> None:
        options = self.config.validate
        settings = what_decides(options.ckpt_path, options.data, self.datamodule.val_split)
        settings |= self.model.evaluation.settings(self.model.net)
        settings["precision"] = str(self.trainer.precision)
        claim_results(folder, settings)

    @rank_zero_only
    def _claim(self, bytes_needed: int) -> None:
        claim(self.folder, bytes_needed, exist_ok=self.resumes)

    def _record_seen(self, splits: list[str]) -> None:
        if splits:
            self.record.about["validation_split_trained_on"] = splits

    def _described(self) -> str:
        return f"{self.config[self.verb].ckpt_path} (step {self.checkpoint['global_step']})"

    def after_fit(self) -> None:
        """What came out, where it is, and what to type next."""
        checkpoints = self.trainer.checkpoint_callback
        best = checkpoints.best_model_path if checkpoints else ""
        if best and self.config.fit.wandb_checkpoint:
            log_checkpoint(self.trainer.loggers, Path(best))
        if best and self.record.final is None:  # validated by processes that have ended
            say(f"Done. Scores: {self.folder / 'results.json'}\nBest        {best}")
            return
        after_fit(self.record.best, best, self.folder)
        if self.record.final is None or self.record.final["step"] < self.trainer.global_step:
            say(
                "The last steps have not been validated: run validate on last.ckpt for their score."
            )

    def after_validate(self) -> None:
        """The table, and where it is written."""
        final = self.record.final
        if final is None:  # the strategy's spawned processes have scored, and one has written it
            say(f"Results     {self.folder / 'results.json'}")
            return
        if self.trainer.is_global_zero:
            scales = list(self.model.evaluation.scales or self.model.net.scales)
            name = f"{type(self.datamodule).__name__} {self.datamodule.val_split}"
            data = f"{name}, {final['images']:,} images, scales {scales}"
            curves = next(
                (c.curves for c in self.trainer.callbacks if isinstance(c, BandCurve)), {}
            )
            after_validate(final, f"{self._described()} on {data}", self.folder, curves)


def main(verb: str, args: ArgsType = None) -> DeepLabCLI:
    """Run a verb.

    Args:
        verb: "fit" or "validate".
        args: command line without the verb; null: the process's own.

    Returns:
        The command line object, with trainer, model and datamodule.

    Raises:
        SystemExit: code 2 after a sentence on stderr where the input is at fault; 128 + signal
            where a run was interrupted.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # not so: the training stream reads on where the optimizer steps stand (data/sampler.py)
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    # Lightning's own affair with torch
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    with plain_errors():
        return DeepLabCLI(verb, args)


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]
