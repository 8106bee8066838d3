"""Find what a command line leaves unsaid: the run to go on with, its config and checkpoint."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit.cli.checks import check_options, check_resumable
from deeplab_lit.cli.options import MASKS
from deeplab_lit.cli.parser import HELP_ALL, configs, flags, peek, refusals, value_of
from deeplab_lit.network.backbone import Backbone
from deeplab_lit.network.head import Head
from deeplab_lit.network.weights.load import WeightsError, read_checkpoint
from deeplab_lit.network.weights.published import NAMED
from deeplab_lit.runs.checkpoints import BEST
from deeplab_lit.runs.folder import (
    NoCheckpointError,
    check_unfinished,
    config_of,
    hold,
    last_checkpoint,
    named_checkpoint,
    new_run_folder,
)
from deeplab_lit.runs.trained_on import named_class
from deeplab_lit.shipped import CONFIGS
from deeplab_lit.text import say
from deeplab_lit.types import class_of

SHAPES = CONFIGS / "shapes.yaml"
DATA, VAL_DATA = {"--data", "--data.class_path"}, {"--val_data", "--val_data.class_path"}
NEEDS_NO_DATA = {"--help", "-h", HELP_ALL, "--print_config"}
# sections and options that one of the two commands has, and the other reads past in configurations
LEFT_OUT = {
    "fit": {"allow_seen_split", *MASKS},
    "validate": {
        *("allow_seen_split", "unlabeled_data", "model", "model_class", "checkpoint"),
        *("threads", "wandb_checkpoint"),
    },
}


def implied_config(command: str, argv: Sequence[str]) -> Path | None:
    """Return the configuration to begin with: that of the checkpoint's run, or of Shapes.

    Args:
        command: "fit" or "validate".
        argv: its command line, of `configs_first`.

    Returns:
        A file; None where the command line or a configuration on it names data, or where there is
        none.

    Raises:
        RunFolderError: `--ckpt_path last`, but there is no run to go on with.
    """
    if names_data(command, argv):
        return None
    checkpoint = value_of(argv, "ckpt_path")
    if checkpoint == "last" and command == "fit":
        runs, experiment = value_of(argv, "runs_dir") or "runs", value_of(argv, "experiment")
        run = value_of(argv, "run") or None
        try:
            checkpoint = str(last_checkpoint(Path(runs), experiment or "*", run))
        except NoCheckpointError:
            if run is None:
                raise
            checkpoint = ""  # this run begins
            if (config := config_of(Path(runs), experiment or "*", run)) is not None:
                return config
    if checkpoint and checkpoint not in NAMED:
        config = Path(checkpoint).expanduser().parent.parent / "config.yaml"
        return config if config.is_file() else None
    return SHAPES if command == "fit" and not configs(argv) else None


def names_data(command: str, argv: Sequence[str]) -> bool:
    """Return whether a command line, or a configuration on it, names data; or asks for help.

    Args:
        command: "fit", or "validate", for which the data to validate on is enough.
        argv: its command line.
    """
    names = DATA | NEEDS_NO_DATA | (VAL_DATA if command == "validate" else set())
    sections = {"data", "val_data"} if command == "validate" else {"data"}
    typed = flags(argv)
    return (
        bool(typed & names)
        or any(flag.endswith(".help") for flag in typed)
        or any(sections & peek(name).keys() for name in configs(argv))
    )


def with_checkpoint_named(argv: Sequence[str]) -> list[str]:
    """Return the command line of a command that scores, with the file for `--ckpt_path last`.

    It is looked up once, so that the checkpoint and its run's configuration are of the same run.

    Raises:
        RunFolderError: there is no run.
    """
    if value_of(argv, "ckpt_path") != "last":
        return list(argv)
    runs, experiment = value_of(argv, "runs_dir") or "runs", value_of(argv, "experiment")
    path, flag = named_checkpoint("last", runs, experiment), "--ckpt_path"
    before = ["", *argv]
    kept = [
        word
        for word, previous in zip(argv, before, strict=False)
        if flag not in (word, previous) and not word.startswith(f"{flag}=")
    ]
    return [*kept, f"{flag}={path}"]


def for_command(command: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a configuration without what only the other command has.

    Args:
        command: "fit" or "validate"; each reads the other's configurations.
        content: of a configuration.
    """
    return {key: value for key, value in content.items() if key not in LEFT_OUT[command]}


def place_of(config: Path) -> dict[str, str]:
    """Return the options that name the run of a configuration, from where it lies."""
    run = config.absolute().parent
    return {
        "runs_dir": str(config.parent.parent.parent),
        "experiment": run.parent.name,
        "run": run.name,
    }


class Checkpoint(NamedTuple):
    """A checkpoint of `fit`, read.

    Attributes:
        path: the file.
        content: of the file.
    """

    path: str
    content: dict[str, Any]

    @property
    def step(self) -> int:
        """The optimizer steps that are done."""
        return self.content["global_step"]


class Start(NamedTuple):
    """The beginning of a training.

    Attributes:
        folder: of the run.
        resumes: the run goes on in a folder that it has already.
        checkpoint: that it goes on from; None: it begins at step 0.
    """

    folder: Path
    resumes: bool
    checkpoint: Checkpoint | None

    @property
    def step(self) -> int:
        """The optimizer steps that are done."""
        return self.checkpoint.step if self.checkpoint else 0

    @property
    def path(self) -> str | None:
        """The checkpoint's file; None: it begins at step 0."""
        return self.checkpoint.path if self.checkpoint else None


def find_start(options: Namespace, experiment: str, held: ExitStack) -> Start:
    """Return where `--ckpt_path` lets a training begin.

    Args:
        options: of `fit`, parsed.
        experiment: of the run.
        held: keeps other processes out of a folder in which the run goes on, until it is closed.

    Raises:
        RunFolderError: the folder cannot be used, or there is no run to go on with.
        WeightsError: the checkpoint cannot be read.
    """
    runs, path = Path(options.runs_dir), options.ckpt_path
    if path in NAMED and not Path(path).exists():
        raise WeightsError(
            f"--ckpt_path {path}: published weights hold no training to go on with; start a new "
            f"one from them with --model.weights {path}"
        )
    if path != "last":
        folder = new_run_folder(runs, experiment, options.run)
        return Start(folder, False, Checkpoint(path, read_checkpoint(path)) if path else None)
    try:
        last = last_checkpoint(runs, experiment, options.run)
    except NoCheckpointError:
        if not options.run:
            raise
        last = runs / experiment / options.run / "checkpoints" / BEST
    folder, best = last.parents[1], last.with_name(BEST)
    resumes = folder.is_dir()
    if resumes:
        hold_alone(held, folder)
    if not last.is_file():
        check_unfinished(folder)
        say(f"{folder} has no checkpoint to go on from: this run begins at step 0.")
        return Start(folder, resumes, None)
    try:
        checkpoint = Checkpoint(str(last), read_checkpoint(last))
    except WeightsError as error:
        if not best.is_file() or last == best:
            raise
        checkpoint = Checkpoint(str(best), read_checkpoint(best))
        say(f"WARNING: {error}. Going on from {best}, step {checkpoint.step}, instead.")
    return Start(folder, resumes, checkpoint)


@rank_zero_only
def hold_alone(held: ExitStack, folder: Path) -> None:
    """Keep other processes out of a run's folder until `held` is closed."""
    held.enter_context(hold(folder))


def with_stored(
    parser: ArgumentParser, argv: Sequence[str], options: Namespace, checkpoint: Checkpoint
) -> Namespace:
    """Return the options with those that the checkpoint keeps of its module.

    Raises:
        UsageError: the checkpoint has a setting that no module has, or such a value.
        WeightsError: it holds no training to go on with; or an option of the user's differs.
    """
    check_resumable(checkpoint.content, checkpoint.path)
    defaults, typed = parser.get_defaults().model, flags(argv)
    asked = {
        name: value
        for name, value in vars(options.model).items()
        if value != defaults[name] or f"--model.{name}" in typed
    }
    settings = {  # those that the checkpoint is older than are at their defaults
        name: default
        for name, default in vars(defaults).items()
        if not isinstance(options.model[name], Namespace)  # a class, of which it keeps the name
    }
    kept = checkpoint.content["hyper_parameters"]
    for name, value in kept.items():
        if name in ("backbone", "head") and isinstance(value, str) and "." in value:
            if value != options.model[name]:
                class_of(value, Backbone if name == "backbone" else Head)
        elif (
            name not in ("classes", "loss", "optimizer", "_instantiator")
            and value != options.model.get(name)  # else the user, or a default, says it too
            and (path := named_class(name, value, ()))
        ):
            raise WeightsError(
                f"{checkpoint.path} sets {name} to {path!r:.80}: a class that a file names is not "
                "imported unasked; start a new training from its weights with --model.weights"
            )
    settings |= {k: v for k, v in kept.items() if k not in ("loss", "optimizer")}
    stored = {"model": {k: v for k, v in settings.items() if k not in ("classes", "_instantiator")}}
    with refusals(parser, [], {checkpoint.path: stored}):
        options = parser.parse_object(stored, options)
    check_options(asked, vars(options.model), checkpoint.path)
    return options
