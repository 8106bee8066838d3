"""python -m deeplab_lit.benchmark: measure speed beside a baseline; see --help.

The variants take turns within one run, so that a busy machine slows all of them alike; medians are
compared.
"""

import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import auto_cli, auto_parser

from deeplab_lit.benchmark.crf import crf
from deeplab_lit.benchmark.data import data
from deeplab_lit.benchmark.evaluation_speed import evaluation
from deeplab_lit.benchmark.gpu import gpu
from deeplab_lit.benchmark.network import network, spelled_out
from deeplab_lit.benchmark.startup import startup
from deeplab_lit.benchmark.step import step
from deeplab_lit.cli.parser import Parser, joined_configs, parse
from deeplab_lit.errors import plain_errors

EXAMPLES = [
    "python -m deeplab_lit.benchmark step --device cpu --crop_size 161",
    "python -m deeplab_lit.benchmark network --size '[513, 513]'",
]
COMMANDS: list[Any] = [step, data, evaluation, crf, network, startup, gpu]


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    with plain_errors():
        argv = joined_configs(sys.argv[1:] if args is None else args)
        about: dict[str, Any] = {
            "as_positional": False,
            "prog": "python -m deeplab_lit.benchmark",
            "parser_class": Parser,
            "examples": EXAMPLES,
        }
        if argv[:1] == ["network"]:
            argv = ["network", *spelled_out(argv[1:])]
        names = [function.__name__ for function in COMMANDS]
        parse(auto_parser(COMMANDS, **about), argv, commands=names)  # says what is wrong
        auto_cli(COMMANDS, args=argv, **about)


if __name__ == "__main__":
    main()
