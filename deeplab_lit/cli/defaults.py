"""What a command line leaves unsaid: the configuration of the run that a checkpoint lies in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deeplab_lit.cli.parser import HELP_ALL, configs, flags, peek, value_of
from deeplab_lit.runs.folder import (
    NoCheckpointError,
    config_of,
    last_checkpoint,
    named_checkpoint,
)

SHAPES = Path(__file__).parents[2] / "configs/shapes.yaml"
DATA, VAL_DATA = {"--data", "--data.class_path"}, {"--val_data", "--val_data.class_path"}
NEEDS_NO_DATA = {"--help", "-h", HELP_ALL, "--print_config"}
# sections and options that one of the two commands has, and the other reads past in configurations
LEFT_OUT = {
    "fit": {"allow_seen_split"},
    "validate": {
        *("allow_seen_split", "unlabeled_data", "model", "model_class", "checkpoint"),
        "wandb_checkpoint",
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
    if checkpoint:
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
    return bool(flags(argv) & names) or any("data" in peek(name) for name in configs(argv))


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
