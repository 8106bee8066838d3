"""What a command line leaves unsaid: the configuration of a run that names no data."""

from itertools import pairwise
from pathlib import Path

import yaml

from deeplab_lit.training.run_folder import last_checkpoint, named_checkpoint

SHAPES = Path(__file__).parents[1] / "configs/shapes.yaml"
NAMES_DATA = {"--data", "--data.class_path", "--help", "-h", "--print_config"}


def implied_config(verb: str, argv: list[str]) -> Path | None:
    """The configuration to begin with: that of the checkpoint's run, or of Shapes.

    Args:
        verb: "fit" or "validate".
        argv: the command line behind it.

    Returns:
        A file; null where the command line or a configuration on it names data, or where there is
        none.

    Raises:
        RunFolderError: `--ckpt_path last`, but there is no run to go on with.
    """
    if names_data(argv):
        return None
    checkpoint = value_of(argv, "--ckpt_path")
    if checkpoint == "last" and verb == "fit":
        runs, experiment = value_of(argv, "--runs_dir") or "runs", value_of(argv, "--experiment")
        run = value_of(argv, "--run") or None
        checkpoint = last_checkpoint(Path(runs), experiment or "*", run)
    if checkpoint:
        config = Path(checkpoint).parent.parent / "config.yaml"
        return config if config.is_file() else None
    return SHAPES if verb == "fit" and not configs(argv) else None


def names_data(argv: list[str]) -> bool:
    """Whether a command line, or a configuration on it, says which data; or asks for help."""
    return bool(flags(argv) & NAMES_DATA) or any(map(_has_data, configs(argv)))


def configs(argv: list[str]) -> list[str]:
    """The configurations on a command line, in their order."""
    found = [following for arg, following in pairwise([*argv, ""]) if arg in ("--config", "-c")]
    return found + [arg.partition("=")[2] for arg in argv if arg.startswith("--config=")]


def _has_data(config: str) -> bool:
    try:
        content = yaml.safe_load(Path(config).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):  # the parser says better what is wrong
        return True
    return isinstance(content, dict) and "data" in content


def configs_first(argv: list[str]) -> list[str]:
    """The command line with its configurations in front, so that every option wins over them."""
    front, rest, words = [], [], iter(argv)
    for word in words:
        if word in ("--config", "-c"):
            front += [word, next(words, "")]
        elif word.startswith("--config="):
            front.append(word)
        else:
            rest.append(word)
    return front + rest


def with_checkpoint_named(argv: list[str]) -> list[str]:
    """Return the command line of a command that scores, with the file for `--ckpt_path last`.

    It is looked up once, so that the checkpoint and its run's configuration are of the same run.

    Raises:
        RunFolderError: there is no run.
    """
    if value_of(argv, "--ckpt_path") != "last":
        return argv
    runs, experiment = value_of(argv, "--runs_dir") or "runs", value_of(argv, "--experiment")
    path = named_checkpoint("last", runs, experiment)
    return [*_without(argv, "--ckpt_path"), f"--ckpt_path={path}"]


def _without(argv: list[str], flag: str) -> list[str]:
    before = ["", *argv]
    return [
        arg
        for arg, previous in zip(argv, before, strict=False)
        if flag not in (arg, previous) and not arg.startswith(f"{flag}=")
    ]


def flags(argv: list[str]) -> set[str]:
    """The names of the options given, with their dashes."""
    return {arg.partition("=")[0] for arg in argv if arg.startswith("-")}


def value_of(argv: list[str], flag: str) -> str:
    """The value of an option on a command line; nothing where it is not there."""
    for arg, following in pairwise([*argv, ""]):
        if arg == flag:
            return following
        if arg.startswith(f"{flag}="):
            return arg.partition("=")[2]
    return ""
