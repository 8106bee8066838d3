"""The command line that `fit` and `validate` share: one LightningCLI, run folders, plain errors."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit import __version__
from deeplab_lit.cli.callbacks import build_callbacks
from deeplab_lit.cli.checks import check_options, check_trainer, refuse_lightning_optimizers
from deeplab_lit.cli.defaults import (
    SHAPES,
    configs_first,
    flags,
    implied_config,
    place_of,
    trusted,
    value_of,
    with_checkpoint_named,
)
from deeplab_lit.cli.options import add_options
from deeplab_lit.cli.parser import CONFIG, Parser, UsageError, joined_configs, parse, refusals
from deeplab_lit.cli.quiet import quieten
from deeplab_lit.crf.options import with_crf_enabled
from deeplab_lit.data import SegmentationData
from deeplab_lit.errors import lasting_screen, plain_errors, refused_arguments, refused_trainer
from deeplab_lit.network.weights.load import read_checkpoint
from deeplab_lit.runs.checkpoints import AtomicCheckpointIO
from deeplab_lit.runs.config import RUN_FOLDER, RunConfig, put_save_dir, with_save_dir
from deeplab_lit.runs.folder import create_run_folder, new_run_folder
from deeplab_lit.runs.loggers import build_loggers
from deeplab_lit.scoring.cityscapes import Instances
from deeplab_lit.training.module import DeepLabModule


class QuietTrainer(Trainer):
    """Lightning's trainer, without a table of its own after a validation."""

    def validate(self, *args: Any, **kwargs: Any) -> list[dict[str, float]]:
        """As the parent."""
        return super().validate(*args, verbose=False, **kwargs)


class RunParser(Parser, LightningArgumentParser):
    """Lightning's parser with the rules of ours."""


class DeepLabCLI(LightningCLI):
    """What `fit` and `validate` share.

    Args:
        args: command line without the verb; null: the process's own.
        held: closed when the command ends; what it holds meanwhile.

    Attributes:
        verb: "fit" or "validate".
        help: usage and description for `--help`.
        resumes: whether the run goes on in a folder that it already has.
    """

    verb: ClassVar[str]
    help: ClassVar[dict[str, str]]
    resumes = False

    def __init__(self, args: ArgsType, held: ExitStack) -> None:
        self.held = held
        super().__init__(
            DeepLabModule,
            SegmentationData,
            save_config_callback=RunConfig,
            trainer_class=QuietTrainer,
            trainer_defaults={"enable_model_summary": False, "log_every_n_steps": 10},
            seed_everything_default=0,
            parser_kwargs={
                "prog": "python -m deeplab_lit",
                "version": __version__,
                self.verb: dict(self.help),
            },
            parser_class=RunParser,
            subclass_mode_data=True,
            args=args,
            auto_configure_optimizers=False,
        )

    def begin_with(self, argv: list[str]) -> Path | None:
        """The configuration that a command line leaves unsaid; null where there is none."""
        return implied_config(self.verb, argv)

    def find_folder(self, options: Namespace, argv: list[str]) -> Path:
        """The run's folder, from the parsed options and the command line; nothing is made yet."""
        suffix = "" if self.verb == "fit" else f"-{self.verb}"
        return new_run_folder(Path(options.runs_dir), self.experiment, options.run, suffix)

    def open_checkpoint(self, options: Namespace) -> dict[str, Any] | None:
        """The checkpoint that `--ckpt_path` names."""
        return read_checkpoint(options.ckpt_path) if options.ckpt_path else None

    def instances(self) -> Instances | None:
        """Cityscapes' instances, where they are scored."""
        return None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What is ours beside trainer, model and data."""
        add_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Put the verb in front; find the data set, the run folder and the checkpoint."""
        self.typed = sys.argv[1:] if args is None else list(args)
        refuse_lightning_optimizers(flags(self.typed))
        argv = configs_first(with_save_dir(with_crf_enabled(joined_configs(self.typed))))
        if self.verb == "validate":
            argv = with_checkpoint_named(argv)
        config = self.begin_with(argv)
        contents = {}
        if config is not None:
            argv = [f"{CONFIG}{config}", *argv]
            if config != SHAPES:
                contents[str(config)] = trusted(config, self.verb)
                if value_of(argv, "ckpt_path") == "last":
                    contents[str(config)] |= place_of(config)
        self.config = parse(parser, [self.verb, *argv], contents, [self.verb])
        options = self.config[self.verb]
        if options.data is None:
            raise UsageError("data is null: name a data set, as --data VOC --data.root VOCdevkit")
        check_trainer(options, validates=self.verb == "validate")
        self.allow_seen_split = "--allow_seen_split" in flags(argv)
        options.allow_seen_split = False  # said anew each time: no configuration may keep it
        defaults = vars(parser.parse_args([self.verb, "--data=Shapes"])[self.verb].model)
        self.asked = {
            key: value
            for key, value in vars(options.model).items()
            if value != defaults[key] or f"--model.{key}" in flags(argv)
        }
        self.experiment = options.experiment or options.data.class_path.rpartition(".")[2].lower()
        self.folder = self.find_folder(options, argv)
        if options.ckpt_path == "":
            raise UsageError("--ckpt_path names no file: leave it out, or give a checkpoint")
        put_save_dir(options.trainer.logger, RUN_FOLDER, str(self.folder))
        self.checkpoint = self.open_checkpoint(options)
        if self.checkpoint is not None:
            self._check_model(parser, options.ckpt_path)

    def _check_model(self, parser: LightningArgumentParser, path: str) -> None:
        """Refuse settings of a model that a checkpoint holds and no model can have.

        LightningCLI parses them too, and ends with the parser's own words.
        """
        stored = {"model": self.checkpoint["hyper_parameters"]}
        stored["model"] = {k: v for k, v in stored["model"].items() if k != "_instantiator"}
        with refusals(parser, [self.verb], {path: stored}, [self.verb]):
            parser.parse_object({self.verb: stored}, self.config)

    def before_instantiate_classes(self) -> None:
        """Refuse flags that a checkpoint would override in silence."""
        torch.set_float32_matmul_precision("high")
        step = self.checkpoint["global_step"] if self.checkpoint else 0
        self.save_config_kwargs = {"folder": self.folder, "step": step}
        if self.checkpoint is not None:
            options = self.config[self.verb]
            check_options(self.asked, vars(options.model), options.ckpt_path)

    def instantiate_classes(self) -> None:
        """As the parent; an argument out of range is the user's error, not a crash."""
        with refused_arguments():
            super().instantiate_classes()
        self.model.evaluation = self.config_init[self.verb].eval

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the loggers and callbacks that every run has."""
        config = self.config_init[self.verb]
        _refuse_unsupported(config.trainer)
        about = {"seed": config.seed_everything, "deeplab_lit": __version__}
        if config.ckpt_path and not self.resumes:  # its own, of which it has no other by then
            about["checkpoint"] = config.ckpt_path
        self.record, callbacks = build_callbacks(
            self.verb,
            self.folder,
            about,
            evaluation=config.eval,
            crf=config.crf,
            progress=config.trainer.enable_progress_bar is not False,
            instances=self.instances(),
            resumes=self.resumes,
            monitor=config.checkpoint.monitor,
            mode=config.checkpoint.mode,
        )
        kwargs["callbacks"] = callbacks + _listed(config.trainer.callbacks)
        if config.checkpoint.dirpath is not None:
            raise MisconfigurationException(
                f"--checkpoint.dirpath is {config.checkpoint.dirpath}: checkpoints lie in their "
                "run's folder, where --ckpt_path last finds them. Another place for whole runs is "
                "--runs_dir"
            )
        config.checkpoint.dirpath = str(self.folder / "checkpoints")
        if isinstance(config.trainer.val_check_interval, int):  # batches, of any epoch
            config.trainer.check_val_every_n_epoch = None
        own = config.trainer.logger
        step = self.checkpoint["global_step"] if self.checkpoint else 0
        kwargs["logger"] = build_loggers(
            self.folder,
            experiment=self.experiment,
            job_type=self.verb,
            resume_step=step if self.resumes else None,
            wandb=own in (None, True),
        )
        if own not in (None, True, False):
            kwargs["logger"] += _listed(own)
        kwargs["plugins"] = [*_listed(config.trainer.plugins), AtomicCheckpointIO()]
        with refused_trainer():
            return super().instantiate_trainer(**kwargs)

    @rank_zero_only
    def claim(self, bytes_needed: int) -> None:
        """Make the run's folder; refuse one that is taken, or a disk without so many bytes."""
        create_run_folder(self.folder, bytes_needed, exist_ok=self.resumes)

    def record_seen(self, splits: list[str]) -> None:
        """Write into the results which of the splits in use the weights have been trained on."""
        if splits:
            self.record.about["validation_split_trained_on"] = splits

    def described(self) -> str:
        """The checkpoint in words."""
        return f"{self.config[self.verb].ckpt_path} (step {self.checkpoint['global_step']})"


CLI = TypeVar("CLI", bound=DeepLabCLI)


def run(cli: type[CLI], args: ArgsType = None) -> CLI:
    """Run a command line.

    Args:
        cli: FitCLI or ValidateCLI.
        args: command line without the verb; null: the process's own.

    Returns:
        The command line object, with trainer, model and datamodule.

    Raises:
        SystemExit: code 2 after a sentence on stderr where the input is at fault; 128 + signal
            where a run was interrupted.
    """
    quieten()
    with plain_errors(), lasting_screen(), ExitStack() as held:
        return cli(args, held)


def _refuse_unsupported(trainer: Namespace) -> None:
    """Refuse options of the trainer that leave a run without what makes it one.

    Raises:
        MisconfigurationException: says which.
    """
    leaves_out = {
        "barebones": trainer.barebones,
        "enable_checkpointing": trainer.enable_checkpointing is False,
        "limit_train_batches": trainer.limit_train_batches == 0,
    }
    for name, is_set in leaves_out.items():
        if is_set:
            raise MisconfigurationException(
                f"--trainer.{name} is {getattr(trainer, name)}: a run trains, and leaves "
                "checkpoints and metrics.csv. Leave the option out; to look for mistakes, "
                "--trainer.fast_dev_run true writes neither"
            )


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]
