"""Options that `fit` and `validate` share, and the run that is built from them."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

from deeplab_lit import __version__
from deeplab_lit.cli.defaults import SHAPES, for_command, place_of
from deeplab_lit.cli.options import (
    GT_PROB,
    GT_PROB_HELP,
    MASKS,
    MODEL_CLASS,
    RULE_HELP,
    add_crf,
    crf_spelled_out,
    with_crf_files,
    with_model_class,
)
from deeplab_lit.cli.parser import (
    CONFIG,
    Parser,
    UsageError,
    configs,
    configs_first,
    joined_configs,
    parse,
    peek,
    read_config,
    value_of,
)
from deeplab_lit.cli.processes import check_world, environment_of
from deeplab_lit.cli.refusal import NOT_SHOWN
from deeplab_lit.cli.screen import LOGGERS
from deeplab_lit.data import SegmentationData
from deeplab_lit.data.dataset import MaskValues
from deeplab_lit.errors import refused_trainer
from deeplab_lit.loading import DataModule
from deeplab_lit.runs.checkpoints import AtomicCheckpointIO, BestAndLast
from deeplab_lit.runs.config import with_save_dir
from deeplab_lit.runs.folder import CHECKPOINT_HELP
from deeplab_lit.runs.record import RunRecord
from deeplab_lit.runs.trained_on import SCORING, neighborhood, read_run
from deeplab_lit.scoring.evaluation import Evaluation, ScoredModule
from deeplab_lit.scoring.observer import Observer
from deeplab_lit.scoring.scored_maps import VoidAs
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.yaml_files import read_text

NETWORK = ("backbone", "output_stride", "head", "atrous_rates", "scales", "style", "norm",
           "align_corners")  # fmt: skip
RARE = ("model.step_size", "model.step_factor", "model.schedule_steps", "model.bias_lr_mult",
        "model.bias_weight_decay", "model.aux_weight", "model.feature_cache",
        "loader.resize_filter", "loader.unlabeled_crop_size", "loader.unlabeled_resize",
        "eval.resize_filter")  # fmt: skip
COMMON = ("max_steps", "devices", "accelerator", "precision", "strategy", "val_check_interval",
          "accumulate_grad_batches", "limit_val_batches", "fast_dev_run")  # fmt: skip
# heading of --help → the options and sections below it; --help_all has what no heading has
TOPICS = {
    NOT_SHOWN: RARE,
    "Data": ["config", "data", "val_data", "unlabeled_data"],
    "Batches": ["loader"],
    "Network": [f"model.{name}" for name in NETWORK],
    "Training": [MODEL_CLASS, "model", "seed_everything"],
    "Evaluation": ["eval", "metrics", "allow_seen_split"],
    "CRF": ["crf"],
    "Masks that are scored instead of a network": MASKS,
    "Run": ["ckpt_path", "runs_dir", "experiment", "run", "threads", "print_config"],
    "Weights and logging": ["model.weights", "checkpoint.monitor", "checkpoint.mode",
                            "wandb_checkpoint", "trainer.logger"],
    "Lightning's trainer": [f"trainer.{name}" for name in COMMON],
}  # fmt: skip
WORDS = {
    "val_data": "data to validate on; as --data, which it is if nothing is said",
    "unlabeled_data": "images without labels, for methods that learn from both; as --data",
    "checkpoint.monitor": "metric by which the best checkpoint is chosen",
    "checkpoint.mode": "max: more of it is better; min: less",
    "trainer.logger": "further loggers; false: none but metrics.csv",
    "trainer.max_steps": "optimizer steps of the training",
    "trainer.devices": "how many GPUs or processes; auto: all GPUs, or one process on a CPU",
    "trainer.accelerator": "cpu, gpu, mps, …; auto: a GPU where there is one",
    "trainer.precision": "32-true (the default), 16-mixed or bf16-mixed: faster on GPUs",
    "trainer.strategy": "ddp, fsdp, …: how several devices share a training",
    "trainer.val_check_interval": "batches from one validation to the next. Default: ten in a "
    "training",
    "trainer.accumulate_grad_batches": "batches of an optimizer step",
    "trainer.limit_val_batches": "score so many batches only, or such a share: for a quick try",
    "trainer.fast_dev_run": "try a single batch, and keep nothing",
}
EXAMPLES = {
    "fit": [
        "python -m deeplab_lit.fit",
        "python -m deeplab_lit.fit --config configs/voc_vgg16_largefov.yaml --data.root VOCdevkit",
        "python -m deeplab_lit.fit --data Folder --data.root mine --trainer.max_steps 2000",
        "python -m deeplab_lit.fit --ckpt_path last",
    ],
    "validate": [
        "python -m deeplab_lit.validate --ckpt_path last",
        "python -m deeplab_lit.validate --ckpt_path last --crf",
        "python -m deeplab_lit.validate --masks masks --data VOC --data.root VOCdevkit",
    ],
}
# which a run sets: ours; and Lightning's, of deterministic algorithms and of seed_everything
VARIABLES = ("OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "PL_GLOBAL_SEED", "PL_SEED_WORKERS")
TRAINER = {"enable_model_summary": False, "log_every_n_steps": 10}
CHECKPOINT = {
    "monitor": "val/miou",
    "mode": "max",
    "filename": "best",
    "auto_insert_metric_name": False,
    "enable_version_counter": False,
}


Module = TypeVar("Module", bound=ScoredModule)


class Run(NamedTuple, Generic[Module]):
    """A run of `fit` or `validate`, for tests and notebooks.

    Attributes:
        trainer: Lightning's.
        module: the network in it is `module.net`.
        datamodule: the data sets, `train` and `val`, and their batches.
        folder: of the run.
        options: as parsed, with the values that the run has found for itself.
        record: what results.json says.
    """

    trainer: Trainer
    module: Module
    datamodule: DataModule
    folder: Path
    options: Namespace
    record: RunRecord


class RunParser(Parser, LightningArgumentParser):
    """Lightning's parser with the rules of ours."""


def build_parser(
    command: str,
    usage: str,
    description: str,
    module: type[DeepLabModule] = DeepLabModule,
) -> RunParser:
    """Return the parser of a command.

    Args:
        command: "fit" or "validate".
        usage: its command line.
        description: what it does.
        module: class that has the options of `fit --model.…`.
    """
    parser = RunParser(
        prog=f"python -m deeplab_lit.{command}",
        usage=usage,
        description=description,
        version=__version__,
        topics=TOPICS,
        examples=EXAMPLES[command],
        words=WORDS,
    )
    parser.add_argument("-c", "--config", action="config", help="Options from a YAML file.")
    add_options(parser, command, module)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER.items()})
    return parser


def add_options(parser: RunParser, command: str, module: type[DeepLabModule]) -> None:
    """Add our options, in the order of the topics of `--help`."""
    add, fits = parser.add_argument, command == "fit"
    parser.add_subclass_arguments(SegmentationData, "data", required=False)
    parser.add_subclass_arguments(SegmentationData, "val_data", required=False)
    by_hand = {"train", "val", "unlabeled", "classes", "only_selected"}
    parser.add_class_arguments(DataModule, "loader", skip=by_hand, instantiate=False)
    if fits:
        parser.add_subclass_arguments(SegmentationData, "unlabeled_data", required=False)
        add(f"--{MODEL_CLASS}", type=str | None, default=None,
            help="Subclass of DeepLabModule; for short --model my.Module.")  # fmt: skip
        parser.add_lightning_class_args(module, "model")
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
    add("--seed_everything", type=bool | int, default=0,
        help="Seed of all random numbers; true draws one.")  # fmt: skip
    add("--eval", type=Evaluation, default=Evaluation())
    add("--metrics", type=Observer | list[Observer] | None, default=None,
        help="Metrics of your own: classes like my_metrics.BoundaryF1; see scoring/observer.py.",
    )  # fmt: skip
    if not fits:
        add("--allow_seen_split", action="store_true",
            help="Score images that the checkpoint was trained on all the same.")  # fmt: skip
        add_masks(parser)
    add_crf(parser)
    add("--ckpt_path", type=str | None, default=None,
        help='Checkpoint to go on from; "last" goes on with the newest run.' if fits else
        CHECKPOINT_HELP)  # fmt: skip
    add("--runs_dir", type=str, default="runs", help="Folder of all experiments.")
    add("--experiment", type=str | None, default=None,
        help="Groups runs: runs/<experiment>/<run>/. Default: the name of the data set.",
    )  # fmt: skip
    add("--run", type=str | None, default=None,
        help="Name of the run. Default: the time. Under torchrun: … -m deeplab_lit.fit -- --run X",
    )  # fmt: skip
    if fits:
        parser.add_lightning_class_args(BestAndLast, "checkpoint")
        parser.set_defaults({f"checkpoint.{name}": value for name, value in CHECKPOINT.items()})
        add("--threads", type=int | None, default=None,
            help="Threads of each process on a CPU. Default: OMP_NUM_THREADS, or one a core.",
        )  # fmt: skip
        add("--wandb_checkpoint", type=bool, default=False,
            help="After training, send the best checkpoint to W&B too.")  # fmt: skip


def add_masks(parser: RunParser) -> None:
    """Add the options of masks that are scored instead of a network."""
    add = parser.add_argument
    add("--masks", type=str | None, default=None,
        help="Folder of label maps (PNG, .npy) or class maps (.npy, .npz), called as the images.",
    )  # fmt: skip
    add("--mask_values", type=MaskValues, default="indices",
        help="What masks hold: class indices, or the values of the data set's label files.",
    )  # fmt: skip
    add("--mask_rule", type=str | None, default=None, help=RULE_HELP)
    add("--void_as", type=VoidAs, default="wrong",
        help="Void (255) in masks is wrong, as for Cityscapes' script; background, as IRN has it; "
        "or skipped.",
    )  # fmt: skip
    add("--gt_prob", type=float, default=GT_PROB, help=GT_PROB_HELP)
    add("--allow_missing", type=bool, default=False,
        help="Images without a mask count as void throughout.")  # fmt: skip


def command_line(typed: Sequence[str]) -> list[str]:
    """Return the words of a command line as `parse_run` takes them, configurations in front.

    A `--` alone, behind which torchrun leaves `--run` alone, is none of them.
    """
    words = joined_configs([word for word in typed if word != "--"])
    return configs_first(with_model_class(with_save_dir(crf_spelled_out(words))))


def parse_run(
    parser: RunParser, command: str, argv: Sequence[str], implied: Path | None
) -> Namespace:
    """Parse the command line of `fit` or `validate`.

    Args:
        parser: of `build_parser`.
        command: "fit" or "validate".
        argv: its command line, of `command_line`.
        implied: the configuration that it begins with, of `implied_config`; None: none.

    Raises:
        UsageError: the parser refuses something, or no data set is named.
        ConfigError: a configuration cannot be read, or names what is not followed unasked.
    """
    contents = with_crf_files(argv)
    for name in configs(argv):
        typed_content = contents.get(name) or read_config(name)
        content = for_command(command, typed_content)
        if content != typed_content:  # else the parser reads the file, and finds those beside it
            contents[name] = content
    if implied is not None:
        argv = [f"{CONFIG}{implied}", *argv]
    if implied is not None and implied != SHAPES:
        typed = typed_classes(argv[1:])
        content = read_run(implied, None if command == "fit" else SCORING, typed=typed)
        content = for_command(command, content) | neighborhood(implied)
        if value_of(argv, "ckpt_path") == "last":
            content |= place_of(implied)
        contents[str(implied)] = content
    options = parse(parser, argv, contents)
    if options.data is None and (command == "fit" or options.val_data is None):
        raise UsageError("data is null: name a data set, as --data VOC --data.root VOCdevkit")
    if options.ckpt_path == "":
        raise UsageError("--ckpt_path names no file: leave it out, or give a checkpoint")
    return options


def typed_classes(argv: Sequence[str]) -> set[str]:
    """Return the texts on a command line, and in its configurations, that may name a class.

    These are the values of the options that take one: whatever else is typed, as the name of a
    run, allows no class of that name.
    """
    sections = ("data", "val_data", "unlabeled_data", "model", MODEL_CLASS, "metrics")
    values: list[Any] = [
        content.get(name) for file in configs(argv) for content in [peek(file)] for name in sections
    ]
    for word, following in pairwise([*argv, ""]):
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and flag[2:].partition(".")[0].rstrip("+") in sections:
            value = value if equals else following
            values += [value, read_text(value, flag) if value.startswith(("[", "{")) else None]
    texts = set()
    while values:
        value = values.pop()
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str):
            texts.add(value)
    return texts


def experiment_of(options: Namespace) -> str:
    """Return the experiment of a run: by default it is called like the data set."""
    return options.experiment or options.data.class_path.rpartition(".")[2].lower()


@contextmanager
def kept_process() -> Iterator[None]:
    """Put back what a run sets for its whole process, for a notebook that goes on after it.

    These are: threads, the precision of matrix products, deterministic algorithms, warnings that
    are silenced and how much libraries log. The random numbers go on from where the run left them.
    """
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    variables = {name: os.environ.get(name) for name in VARIABLES}
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.benchmark
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    try:
        with warnings.catch_warnings():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns_only)
        torch.backends.cudnn.benchmark = cudnn
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def set_up_process(options: Namespace) -> None:
    """Set the seed of all random numbers, how float32 matrices are multiplied, and by how many."""
    torch.set_float32_matmul_precision("high")
    if (threads := options.get("threads")) is not None:
        torch.set_num_threads(threads)
        # else Lightning sets a number of its own where it starts several processes
        os.environ["OMP_NUM_THREADS"] = str(threads)
    if options.seed_everything is not False:
        seed = None if options.seed_everything is True else options.seed_everything
        options.seed_everything = seed_everything(seed, workers=True, verbose=False)


def build_trainer(
    options: Namespace,
    callbacks: Sequence[Callback],
    last_callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    folder: Path,
) -> Trainer:
    """Return the trainer of the options, with the callbacks and loggers that every run has.

    Args:
        options: section `trainer`, its classes instantiated.
        callbacks: in front of those of the options.
        last_callbacks: behind them.
        loggers: in front of those of the options.
        folder: of the run.

    Raises:
        UserError: Lightning refuses an option, or there are other processes than it expects.
    """
    settings = dict(vars(options))
    if options.default_root_dir is None:  # where Lightning looks for checkpoints in SLURM jobs
        settings["default_root_dir"] = folder
    if isinstance(options.val_check_interval, int):  # batches, of any epoch
        settings["check_val_every_n_epoch"] = None
    settings["callbacks"] = [*callbacks, *listed(options.callbacks), *last_callbacks]
    more = [] if isinstance(options.logger, bool) else listed(options.logger)
    settings["logger"] = [*loggers, *more]
    plugins = listed(options.plugins)
    settings["plugins"] = [*plugins, *environment_of(plugins), AtomicCheckpointIO()]
    with refused_trainer():
        trainer = Trainer(**settings)
    check_world(trainer)
    return trainer


def listed(value: Any) -> list:
    """Return an option that may be one value, several or none as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]
