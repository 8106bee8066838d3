"""Options that are typed in more than one form: `--crf` and `--model`.

`--crf` stands alone, with a file, by parameters, or both; it is None where it is not typed.
`fit --model my.Module` names a training of the user's own, whose options stand beside the others.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from deeplab_lit.cli.parser import UsageError, configs, peek, value_of
from deeplab_lit.crf import DenseCRF
from deeplab_lit.shipped import located
from deeplab_lit.types import path_of
from deeplab_lit.yaml_files import ConfigError, read_options

if TYPE_CHECKING:  # which loads Lightning, and `predict` needs none
    from deeplab_lit.training.module import DeepLabModule

CRF_HELP = (
    "Refine with the dense CRF; a file like configs/crf/vgg16.yaml, or --crf.bi_w 5, changes its "
    "parameters (--crf.help)."
)
MASKS = ["masks", "mask_values", "mask_rule", "void_as", "gt_prob", "allow_missing"]
GT_PROB = 0.7  # as in pydensecrf's examples, and in IRN's crf_inference_label
GT_PROB_HELP = "For the CRF, the probability of a label in a mask; the others share the rest."
RULE_HELP = (
    "How class maps become labels: threshold:0.15, power:2, certain:0.95, or two: power:1,"
    "certain:0.95; see data/map_rule.py."
)
MODEL_CLASS = "model_class"  # as configurations have it: `model` is the section of its options


def add_crf(parser: ArgumentParser, help: str = CRF_HELP) -> None:
    """Add the option to a parser; its command lines go through `crf_spelled_out` first."""
    parser.add_argument("--crf", type=DenseCRF | None, default=None, help=help)


def crf_spelled_out(argv: Sequence[str]) -> list[str]:
    """Return a command line with `--crf` and `--crf FILE` as the parameters that they stand for.

    They come first, so that other parameters on the command line win wherever they stand.

    Raises:
        ConfigError: the file cannot be read, or is no such file.
    """
    crf: list[str] = []
    others: list[str] = []
    for previous, word in pairwise(["", *argv]):
        if previous == "--crf" and not word.startswith("-"):
            crf[-1] = _parameters(word)
        elif word == "--crf":
            crf.append("--crf={}")
        elif word.startswith("--crf="):
            crf.append(_parameters(word.removeprefix("--crf=")))
        else:
            others.append(word)
    return [*crf, *others]


def _parameters(file: str) -> str:
    if file.startswith("{"):
        return f"--crf={file}"
    return f"--crf={json.dumps(crf_section(file))}"


def crf_section(file: str) -> dict[str, Any] | None:
    """Return the parameters of the CRF in a file like configs/crf/vgg16.yaml; None for "null".

    Raises:
        ConfigError: the file cannot be read, or is no such file.
    """
    if file in ("null", "None"):  # as YAML, and as sweeps write it
        return None
    try:
        parameters = read_options(located(os.path.expanduser(file)))  # noqa: PTH111 - as typed
    except ConfigError as error:
        raise ConfigError(
            f"--crf: {error}; expected a file like configs/crf/vgg16.yaml, or nothing for the "
            "released parameters of ResNet-101"
        ) from error
    names = [field.name for field in fields(DenseCRF)]
    if unknown := parameters.keys() - names:
        raise ConfigError(
            f"{file}: {min(unknown)} is no parameter of the CRF: expected {', '.join(names)}"
        )
    return parameters


def with_crf_files(argv: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the configurations of a command line whose `crf` is a file, with that file's parameters.

    Args:
        argv: a command line of `joined_configs`.

    Returns:
        Name of the configuration → its content; none of those that the parser reads as they are.

    Raises:
        ConfigError: such a file cannot be read.
    """
    contents = {name: peek(name) for name in configs(argv)}
    return {
        name: content | {"crf": crf_section(content["crf"])}
        for name, content in contents.items()
        if isinstance(content.get("crf"), str)
    }


def with_model_class(argv: Sequence[str]) -> list[str]:
    """Return a command line with `--model_class=NAME` for `--model NAME`; files stay a section."""
    words: list[str] = []
    rest: Iterator[str] = iter(argv)
    for word in rest:
        flag, equals, name = word.partition("=")
        if flag == "--model":
            name = name if equals else next(rest, "")
            is_section = name == "null" or name.endswith((".yaml", ".yml")) or Path(name).is_file()
            words.append(f"--model={name}" if is_section else f"--{MODEL_CLASS}={name}")
        else:
            words.append(word)
    return words


def model_class(argv: Sequence[str], default: "type[DeepLabModule]") -> "type[DeepLabModule]":
    """Return the class of the training that a command line, or a configuration on it, names.

    Args:
        argv: a command line of `with_model_class`.
        default: where none is named.

    Raises:
        UsageError: there is no such class, or it is not one of a training.
    """
    path = value_of(argv, MODEL_CLASS)
    if path in ("", "null", path_of(default)):
        if f"--{MODEL_CLASS}=" in argv:
            raise UsageError("--model needs the name of a class, like my_module.MyModule")
        return default
    from deeplab_lit.training.module import DeepLabModule

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
