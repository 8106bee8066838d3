"""`fit --model my.Module`: a training of the user's own, whose options stand beside the others."""

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from deeplab_lit.cli.parser import UsageError, value_of
from deeplab_lit.network.class_path import path_of
from deeplab_lit.training.module import DeepLabModule

OPTION = "model_class"  # as configurations have it: `model` is the section of its options


def with_model_class(argv: Sequence[str]) -> list[str]:
    """Return a command line with `--model_class=NAME` for `--model NAME`; files stay a section."""
    words: list[str] = []
    rest: Iterator[str] = iter(argv)
    for word in rest:
        flag, equals, name = word.partition("=")
        if flag == "--model":
            name = name if equals else next(rest, "")
            is_file = name.endswith((".yaml", ".yml")) or Path(name).is_file()
            words.append(f"--model={name}" if is_file else f"--{OPTION}={name}")
        else:
            words.append(word)
    return words


def model_class(argv: Sequence[str], default: type[DeepLabModule]) -> type[DeepLabModule]:
    """Return the class of the training that a command line, or a configuration on it, names.

    Args:
        argv: a command line of `with_model_class`.
        default: where none is named.

    Raises:
        UsageError: there is no such class, or it is not one of a training.
    """
    path = value_of(argv, OPTION)
    if path in ("", "null", path_of(default)):
        if f"--{OPTION}=" in argv:
            raise UsageError("--model needs the name of a class, like my_module.MyModule")
        return default
    module, _, name = path.rpartition(".")
    if str(Path.cwd()) not in sys.path:  # a command that was installed does not look there
        sys.path.append(str(Path.cwd()))
    try:
        chosen = getattr(import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"--model {path}: {error}. Name module and class, like my_module.MyModule, and start "
            "the command in the module's folder"
        ) from error
    if not isinstance(chosen, type) or not issubclass(chosen, DeepLabModule):
        raise UsageError(
            f"--model {path}: expected the name of a subclass of {path_of(DeepLabModule)}, like "
            "my_module.MyModule; its options are --model.…"
        )
    return chosen
