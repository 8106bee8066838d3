"""The command line of `fit` and `validate`: one LightningCLI, run folders, errors in a sentence."""

import errno
import logging
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit import __version__
from deeplab_lit.data import DataError, SegmentationData
from deeplab_lit.network.weights import WeightsError, read_checkpoint
from deeplab_lit.training.interrupt import SaveOnSignal
from deeplab_lit.training.loggers import build_loggers, log_config
from deeplab_lit.training.module import DeepLabModule, Evaluation
from deeplab_lit.training.optimizer import parameter_groups
from deeplab_lit.training.progress import StepProgress
from deeplab_lit.training.record import RunRecord, table
from deeplab_lit.training.reproducible import StepSeed
from deeplab_lit.training.run_folder import RunFolderError, claim, last_checkpoint, new_run_folder
from deeplab_lit.training.samples import SamplePictures
from deeplab_lit.training.throughput import Throughput

SHAPES = Path(__file__).parents[1] / "configs/shapes.yaml"
USER_ERRORS = (DataError, WeightsError, RunFolderError, MisconfigurationException)


class RunConfig(SaveConfigCallback):
    """Saves config.yaml in the run folder, and the same to the loggers.

    Args:
        folder: of the run. Where it has a config.yaml already, because the run goes on, the new one
            is config_from_step_<n>.yaml.
        kwargs: of the parent.
    """

    def __init__(self, *args: Any, folder: Path, **kwargs: Any) -> None:
        super().__init__(*args, save_to_log_dir=False, **kwargs)
        self.folder = folder

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """On the first process, when a run is set up."""
        path = self.folder / "config.yaml"
        if path.exists():
            path = self.folder / f"config_from_step_{_step(trainer.ckpt_path)}.yaml"
        text = self.parser.dump(self.config, skip_none=False)
        path.write_text(text)
        log_config(trainer.loggers, yaml.safe_load(text))


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
            trainer_defaults={"enable_model_summary": False, "log_every_n_steps": 10},
            seed_everything_default=0,
            parser_kwargs={"prog": "python -m deeplab_lit", "version": __version__},
            subclass_mode_data=True,
            args=args,
            auto_configure_optimizers=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The verbs, and the arguments of Trainer's methods that the command line leaves out."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": {"model", "dataloaders", "datamodule", "weights_only", "verbose"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What is ours beside trainer, model and data."""
        parser.add_argument(
            "--runs_dir", type=str, default="runs", help="Folder of all experiments."
        )
        parser.add_argument(
            "--experiment",
            type=str | None,
            default=None,
            help="Groups runs: runs/<experiment>/<run>/. Default: the name of the data set.",
        )
        parser.add_argument(
            "--run", type=str | None, default=None, help="Name of the run. Default: the time."
        )
        parser.add_argument("--eval", type=Evaluation, default=Evaluation())
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/miou",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Put the verb in front; find the data set, the run folder and the checkpoint."""
        argv = sys.argv[1:] if args is None else list(args)
        argv = [*self._default_config(argv), *argv]
        self.config = parser.parse_args([self.verb, *argv])
        options = self.config[self.verb]
        defaults = vars(parser.parse_args([self.verb, "--data=Shapes"])[self.verb].model)
        flags = _flags(argv)
        self.asked = {
            key: value
            for key, value in vars(options.model).items()
            if value != defaults[key] or f"--model.{key}" in flags
        }
        runs = Path(options.runs_dir)
        self.experiment = options.experiment or options.data.class_path.rpartition(".")[2].lower()
        self.resumes = self.verb == "fit" and options.ckpt_path == "last"
        if self.resumes:
            options.ckpt_path = str(last_checkpoint(runs, self.experiment, options.run))
            self.folder = Path(options.ckpt_path).parents[1]
        else:
            suffix = "" if self.verb == "fit" else f"-{self.verb}"
            self.folder = new_run_folder(runs, self.experiment, options.run, suffix)
        self.checkpoint = read_checkpoint(options.ckpt_path) if options.ckpt_path else None
        if self.verb == "validate" and self.checkpoint is None:
            raise WeightsError("validate needs --ckpt_path FILE, a checkpoint that fit wrote")

    def _default_config(self, argv: list[str]) -> list[str]:
        """The config of a command line that names no data: the checkpoint's own, or Shapes."""
        flags = _flags(argv)
        if flags & {
            "--config",
            "-c",
            "--data",
            "--data.class_path",
            "--help",
            "-h",
            "--print_config",
        }:
            return []
        if "--ckpt_path" in flags:
            path = Path(_value(argv, "--ckpt_path"))
            config = path.parent.parent / "config.yaml"
            return [f"--config={config}"] if config.is_file() else []
        if self.verb == "fit":
            _say(
                "No --config and no --data: training on the built-in Shapes set "
                "(configs/shapes.yaml)."
            )
            return [f"--config={SHAPES}"]
        return []

    def before_instantiate_classes(self) -> None:
        """Refuse flags that a checkpoint would override in silence."""
        torch.set_float32_matmul_precision("high")
        self.save_config_kwargs = {"folder": self.folder}
        if self.checkpoint is None:
            return
        stored = vars(self.config[self.verb].model)
        for key, value in self.asked.items():
            if key in stored and stored[key] != value and key != "weights":
                path = self.config[self.verb].ckpt_path
                raise WeightsError(
                    f"--model.{key} is {value}, but {path} was trained with {stored[key]}, and a "
                    "checkpoint keeps its own. Leave the option out; or, to start a new training "
                    f"from these weights, use --model.weights {path} instead of --ckpt_path."
                )

    def instantiate_classes(self) -> None:
        """As the parent; an argument out of range is the user's error, not a crash."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error
        self.model.evaluation = self.config_init[self.verb].eval

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the loggers and callbacks that every run has."""
        config = self.config_init[self.verb]
        about = {"seed": config.seed_everything, "deeplab_lit": __version__}
        if config.ckpt_path:
            about["checkpoint"] = config.ckpt_path
        self.record = RunRecord(self.folder, about)
        callbacks = [StepProgress(), self.record, SamplePictures(self.folder)]
        if self.verb == "fit":
            callbacks += [StepSeed(), Throughput(), SaveOnSignal()]
        kwargs["callbacks"] = callbacks + (config.trainer.callbacks or [])
        if config.trainer.logger in (None, True):
            kwargs["logger"] = build_loggers(
                self.folder,
                experiment=self.experiment,
                job_type=self.verb,
                resume_step=self.checkpoint["global_step"] if self.resumes else None,
            )
        if not config.trainer.enable_progress_bar:
            callbacks.pop(0)
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Everything that can be refused before the first step."""
        self._check_classes()
        if self.checkpoint is None:
            self.model.initialise()
        self.datamodule.preflight("fit")
        parameters = sum(p.numel() for p in self.model.parameters())
        self._claim(
            bytes_needed=4 * 2 * parameters * 3
        )  # with momentum; best, last, and one in writing
        self._introduce(parameters)

    def before_validate(self) -> None:
        """Everything that can be refused before the first image."""
        self._check_classes()
        self.datamodule.preflight("validate")
        self._claim(bytes_needed=10_000_000)

    @rank_zero_only
    def _claim(self, bytes_needed: int) -> None:
        claim(self.folder, bytes_needed)

    def _check_classes(self) -> None:
        if self.checkpoint is None:
            return
        stored = list(self.checkpoint["hyper_parameters"]["classes"])
        here = list(self.datamodule.classes)
        path, data = self.config[self.verb].ckpt_path, type(self.datamodule).__name__
        if len(stored) != len(here):
            raise WeightsError(
                f"{path} has {len(stored)} classes ({_some(stored)}), but {data} has {len(here)} "
                f"({_some(here)}): give the data set that it was trained on"
            )
        if stored != here:
            _say(
                f"Note: {path} calls its classes {_some(stored)}; {data} calls them {_some(here)}."
            )

    def _introduce(self, parameters: int) -> None:
        model = self.config[self.verb].model
        data = self.datamodule
        groups = parameter_groups(
            self.model.net,
            lr=model.lr,
            weight_decay=model.weight_decay,
            head_lr_mult=model.head_lr_mult,
        )
        sizes = (
            f"{group['name']} {sum(p.numel() for p in group['params']):,} at {group['lr']:g}"
            for group in groups
        )
        _say(
            f"Data      {type(data).__name__}: {len(data.training().ids)} training images "
            f"({data.train_split}), {len(data.split(data.val_split).ids)} validation images "
            f"({data.val_split}), {len(data.classes)} classes",
            f"Network   {model.backbone}, output stride {model.output_stride}, {model.head} "
            f"{list(model.atrous_rates)}, scales {list(model.scales)}: {parameters:,} parameters",
            f"Learning  {'; '.join(sizes)}",
            f"Run       {self.folder}" + (f", from {self._ckpt_path()}" if self.checkpoint else ""),
        )

    def _ckpt_path(self) -> str:
        return f"{self.config[self.verb].ckpt_path} (step {self.checkpoint['global_step']})"

    @rank_zero_only
    def after_fit(self) -> None:
        """What came out, where it is, and what to type next."""
        best = self.record.best
        if best is None:
            _say(f"Done. No validation took place. Run folder: {self.folder}")
            return
        checkpoint = (
            self.trainer.checkpoint_callback.best_model_path
            if self.trainer.checkpoint_callback
            else ""
        )
        _say(
            f"\nBest mIoU {100 * (best['miou'] or 0):.2f} % at step {best['step']}\n",
            table(best),
            "",
            f"Checkpoint  {_relative(checkpoint) or 'none'}",
            f"Pictures    {_relative(self.folder / 'predictions.png')}",
            f"Results     {_relative(self.folder / 'results.json')}",
        )
        if checkpoint:
            command = [
                _python(),
                "-m",
                "deeplab_lit.validate",
                "--ckpt_path",
                _relative(checkpoint),
            ]
            _say(f"Next        {shlex.join(command)}")

    @rank_zero_only
    def after_validate(self) -> None:
        """The table, and where it is written."""
        final = self.record.final
        _say(
            f"\n{self._ckpt_path()} on {type(self.datamodule).__name__} "
            f"{self.datamodule.val_split}: "
            f"mIoU {100 * (final['miou'] or 0):.2f} %\n",
            table(final),
            "",
            f"Pictures    {_relative(self.folder / 'predictions.png')}",
            f"Results     {_relative(self.folder / 'results.json')}",
        )


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
    try:
        return DeepLabCLI(verb, args)
    except USER_ERRORS as error:
        _refuse(str(error).rpartition(f"{type(error).__name__}: ")[2], error)
    except torch.OutOfMemoryError as error:
        _refuse(
            "out of GPU memory. What helps: --data.batch_size smaller and "
            "--trainer.accumulate_grad_batches larger by the same factor, --trainer.precision "
            "bf16-mixed, --model.gradient_checkpointing true, fewer --model.scales.",
            error,
        )
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        _refuse(
            f"{error.filename or 'the run folder'}: {error.strerror}. "
            "What was written before is kept.",
            error,
        )
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error


def _refuse(message: str, error: BaseException) -> None:
    print(f"error: {message.strip()}", file=sys.stderr)
    raise SystemExit(2) from error


@rank_zero_only
def _say(*lines: str) -> None:
    print("\n".join(lines), flush=True)


def _flags(argv: list[str]) -> set[str]:
    return {arg.partition("=")[0] for arg in argv if arg.startswith("-")}


def _value(argv: list[str], flag: str) -> str:
    for arg, following in zip(argv, [*argv[1:], ""], strict=True):
        if arg == flag:
            return following
        if arg.startswith(f"{flag}="):
            return arg.partition("=")[2]
    return ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _step(path: str | None) -> int:
    return read_checkpoint(path)["global_step"] if path else 0


def _relative(path: str | Path) -> str:
    path = str(path)
    return os.path.relpath(path) if path.startswith(str(Path.cwd())) else path


def _python() -> str:
    """How to call this interpreter from here."""
    found = shutil.which("python")
    if found and Path(found).samefile(sys.executable):
        return "python"
    return _relative(sys.executable)
