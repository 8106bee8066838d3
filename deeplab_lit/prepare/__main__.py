"""python -m deeplab_lit.prepare: put a data set in place, or check one; see --help.

Downloads the official archives into --root (or takes those that lie there), checks, unpacks and
converts them. Started again, it goes on where it was stopped; a data set that is in place is left
alone.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from deeplab_lit.cli.parser import Parser, configs, joined_configs, parse, read_config
from deeplab_lit.data import DataError, SegmentationData
from deeplab_lit.errors import plain_errors, refused_arguments
from deeplab_lit.prepare.ade20k import prepare_ade20k
from deeplab_lit.prepare.check import check
from deeplab_lit.prepare.cityscapes import prepare_cityscapes
from deeplab_lit.prepare.coco_stuff import prepare_coco_stuff_10k, prepare_coco_stuff_164k
from deeplab_lit.prepare.pascal_context import prepare_pascal_context
from deeplab_lit.prepare.person_part import prepare_person_part
from deeplab_lit.prepare.source import Source
from deeplab_lit.prepare.voc import prepare_voc
from deeplab_lit.prepare.whole import alone_in

DATA_SETS: dict[str, Callable[[Source], str]] = {
    "voc": prepare_voc,
    "cityscapes": prepare_cityscapes,
    "pascal_context": prepare_pascal_context,
    "person_part": prepare_person_part,
    "coco_stuff_10k": prepare_coco_stuff_10k,
    "coco_stuff_164k": prepare_coco_stuff_164k,
    "ade20k": prepare_ade20k,
}
CHECK = """Read every image and mask of the splits that a configuration names, and list all that is
wrong. Prints a table (images, sizes, class frequencies, void) and draws it."""


def build_parser() -> Parser:
    """The options."""
    parser = Parser(prog="python -m deeplab_lit.prepare", description=__doc__)
    commands = parser.add_subcommands(dest="name", metavar="NAME")
    for name, prepare in DATA_SETS.items():
        own = Parser(description=prepare.__doc__)
        own.add_class_arguments(Source, as_group=False)
        commands.add_subcommand(name, own, help=(prepare.__doc__ or "").partition("\n")[0])
    own = Parser(description=CHECK)
    own.add_argument(
        "--config", action="config", help="Configuration of a run, of which the data counts."
    )
    own.add_subclass_arguments(SegmentationData, "data", required=True)
    own.add_argument(
        "--plot",
        type=str | None,
        default=None,
        help="Picture of the table, to be written. Default: data_check/<data set>.png",
    )
    own.add_argument(
        "--num_workers", type=int, default=min(os.cpu_count() or 1, 8), help="Threads that read."
    )
    commands.add_subcommand("check", own, help="Read every file of a data set and sum it up.")
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 1 where a check has found problems."""
    with plain_errors():
        parser = build_parser()
        argv = joined_configs(sys.argv[1:] if args is None else args)
        check_alone = argv[:1] == ["check"]
        files = {name: data_section(name) for name in configs(argv)} if check_alone else {}
        options = parse(parser, argv, files, [*DATA_SETS, "check"])
        if options.name == "check":
            with refused_arguments():
                made = parser.instantiate(options).check
            return check(made.data, made.plot, made.num_workers)
        _prepare(options.name, options[options.name])
    return 0


def data_section(config: str) -> dict[str, Any]:
    """The content of a run's configuration, of which only `data` is left.

    Raises:
        ConfigError: it cannot be read.
    """
    content = read_config(config)
    return {"data": content["data"]} if "data" in content else {}


def _prepare(name: str, options: Namespace) -> None:
    source = Source(**vars(options) | {"root": Path(options.root).expanduser()})
    try:
        source.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--root {source.root} cannot be made ({error.strerror})") from error
    with alone_in(source.root):
        hint = DATA_SETS[name](source)
    print(
        f"{name} is in place; archives in {source.root} can be deleted. Check every file with\n"
        f"  python -m deeplab_lit.prepare check {hint}\nand train on it with the same options."
    )


if __name__ == "__main__":
    # as an exception, so that a pool of processes is ended too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
