"""The option `--crf`: alone, with a file, by parameters, or both; None where it is not typed."""

import json
import os
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise

from jsonargparse import ArgumentParser

from deeplab_lit.crf import DenseCRF
from deeplab_lit.yaml_files import ConfigError, read_options

HELP = (
    "Refine with the dense CRF; a file like configs/crf/vgg16.yaml, or --crf.bi_w 5, changes its "
    "parameters (--crf.help)."
)


def add_crf(parser: ArgumentParser) -> None:
    """Add the option to a parser; its command lines go through `crf_spelled_out` first."""
    parser.add_argument("--crf", type=DenseCRF | None, default=None, help=HELP)


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
    if file.startswith("{") or file == "null":
        return f"--crf={file}"
    try:
        parameters = read_options(os.path.expanduser(file))  # noqa: PTH111 - as typed in errors
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
    return f"--crf={json.dumps(parameters)}"
