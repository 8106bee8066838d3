"""What a command line leaves unsaid: the configuration of a run that names no data."""

from itertools import pairwise
from pathlib import Path

from deeplab_lit.training.run_folder import last_checkpoint

SHAPES = Path(__file__).parents[1] / "configs/shapes.yaml"
NAMES_DATA = {"--config", "-c", "--data", "--data.class_path", "--help", "-h", "--print_config"}


def implied_config(verb: str, argv: list[str]) -> Path | None:
    """The configuration to begin with: that of the checkpoint's run, or of Shapes.

    Args:
        verb: "fit" or "validate".
        argv: the command line behind it.

    Returns:
        A file; null where the command line names data or a configuration, or where there is none.

    Raises:
        RunFolderError: `--ckpt_path last`, but there is no run to go on with.
    """
    if flags(argv) & NAMES_DATA:
        return None
    checkpoint = _value(argv, "--ckpt_path")
    if checkpoint == "last" and verb == "fit":
        runs, experiment = _value(argv, "--runs_dir") or "runs", _value(argv, "--experiment")
        run = _value(argv, "--run") or None
        checkpoint = last_checkpoint(Path(runs), experiment or "*", run)
    if checkpoint:
        config = Path(checkpoint).parent.parent / "config.yaml"
        return config if config.is_file() else None
    return SHAPES if verb == "fit" else None


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


def flags(argv: list[str]) -> set[str]:
    """The names of the options given, with their dashes."""
    return {arg.partition("=")[0] for arg in argv if arg.startswith("-")}


def _value(argv: list[str], flag: str) -> str:
    for arg, following in pairwise([*argv, ""]):
        if arg == flag:
            return following
        if arg.startswith(f"{flag}="):
            return arg.partition("=")[2]
    return ""
