"""python -m deeplab_lit.prepare: put a data set in place, or check one; see --help.

Downloads the official archives into --root (or takes those that lie there), checks, unpacks and
converts them. Started again, it goes on where it was stopped; a data set that is in place is left
alone.
"""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from deeplab_lit.cli.parser import (
    Parser,
    UsageError,
    configs,
    joined_configs,
    parse,
    read_config,
    words_of,
)
from deeplab_lit.errors import plain_errors, refused_arguments
from deeplab_lit.terminal import command, from_here
from deeplab_lit.text import say
from deeplab_lit.yaml_files import with_todays_names

DATA_SETS = {  # name → what its --help says, first in one line
    "voc": """PASCAL VOC 2012 with SBD: train, val, trainval, train_aug, trainval_aug.

    2.0 and 1.4 GB are downloaded.""",
    "cityscapes": """Cityscapes, fine annotations, from the two zips that you put into --root.

    They are leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB) from
    https://www.cityscapes-dataset.com/downloads, where they take a free account. The label ids
    become training ids when they are read, so nothing is converted.""",
    "pascal_context": """PASCAL-Context: 59 classes and background on VOC 2010's images.

    1.3 GB and 31 MB are downloaded. What is none of the 59 classes is background.""",
    "person_part": """PASCAL-Person-Part: six parts of people and background on VOC 2010's images.

    1.3 GB are downloaded, and the masks and lists that L.-C. Chen released
    (pascal_person_part.zip).""",
    "coco2014": """COCO 2014, 80 classes and background: 82,783 training, 40,504 validation images.

    20 GB are downloaded; train2014/, val2014/ and annotations/ that lie in --root are used. Masks
    are drawn from instances_*.json as COCO's own tools do, without crowds.""",
    "coco_stuff_10k": "COCO-Stuff 10k: 9,000 training and 1,000 validation images. 2.0 GB are "
    "downloaded.",
    "coco_stuff_164k": "COCO-Stuff 164k: 118,287 training and 5,000 validation images. 20 GB are "
    "downloaded.",
    "ade20k": """ADE20K, the challenge's 150 classes: 20,210 training and 2,000 validation images.

    0.9 GB are downloaded. Nothing is converted: labels become class indices when they are read.""",
    "gta5": """GTA5 ("Playing for Data"): 24,966 frames of a game, labeled as Cityscapes is.

    Twenty zips (01_images.zip … 10_images.zip, 01_labels.zip … 10_labels.zip) and read_mapping.zip
    are downloaded. They have no published checksums: the files are counted.""",
    "synthia": """SYNTHIA-RAND-CITYSCAPES: 9,400 rendered frames with Cityscapes' classes.

    SYNTHIA_RAND_CITYSCAPES.rar is downloaded, over http and without a checksum, and unpacked by
    unar, bsdtar, unrar or 7z, whichever is there. The files are counted, and all are decoded.""",
}
EXAMPLES = [
    "python -m deeplab_lit.prepare voc --root data/voc",
    "python -m deeplab_lit.prepare check --data Folder --data.root mine",
]
FURTHER_DATA = ("val_data", "unlabeled_data")  # that a run may have beside its data
CHECK = """Read every image and mask of the splits that a configuration names, and list all that is
wrong. Prints a table (images, sizes, class frequencies, void) and draws it."""
DEGRADE = """Write the masks of a training split with errors that are put in on purpose: objects
eroded, dilated or missing, and void, as pseudo-labels have them.

To learn how much a training survives of such errors: train on these masks with different losses,
and score on the validation split, whose masks stay as they are. An object is a connected component
of a class other than background. Void lies near borders above all, and in spots. Without a class
called background, all classes are objects, and what is taken away becomes void."""

ID_LIST = """Write a list of images to train on with labels, for --data.ids, and one of the rest.

The images are drawn, or come in a published order: the pickled permutations of Mittal et al. are
read without running anything in them. Classes that no drawn image holds are named."""


def prepare_functions() -> dict[str, Callable[..., str]]:
    """Return a function for each data set: puts it in place, returns the options to use it.

    Each takes a Source, and what else its command has options for.
    """
    from deeplab_lit.prepare.coco import prepare_coco2014
    from deeplab_lit.prepare.coco_stuff import prepare_coco_stuff_10k, prepare_coco_stuff_164k
    from deeplab_lit.prepare.gta5 import prepare_gta5
    from deeplab_lit.prepare.synthia import prepare_synthia
    from deeplab_lit.prepare.unpack import prepare_ade20k, prepare_cityscapes
    from deeplab_lit.prepare.voc import prepare_voc
    from deeplab_lit.prepare.voc_2010 import prepare_pascal_context, prepare_person_part

    return {
        "voc": prepare_voc,
        "cityscapes": prepare_cityscapes,
        "pascal_context": prepare_pascal_context,
        "person_part": prepare_person_part,
        "coco2014": prepare_coco2014,
        "coco_stuff_10k": prepare_coco_stuff_10k,
        "coco_stuff_164k": prepare_coco_stuff_164k,
        "ade20k": prepare_ade20k,
        "gta5": prepare_gta5,
        "synthia": prepare_synthia,
    }


def build_parser(reads_data: bool = True) -> Parser:
    """Build the parser.

    Args:
        reads_data: whether `check`, `degrade` and `id_list` get their options. They take an import
            of all data sets.
    """
    parser = Parser(prog="python -m deeplab_lit.prepare", description=__doc__, examples=EXAMPLES)
    commands = parser.add_subcommands(dest="name", metavar="NAME")
    for name, description in DATA_SETS.items():
        subparser = Parser(description=description)
        subparser.add_argument(
            "--root",
            type=Path,
            required=True,
            help="Folder of the data set. An archive that lies there is used, any other is "
            "downloaded into it.",
        )
        subparser.add_argument(
            "--mirror",
            type=str | None,
            default=None,
            help="Address of a folder on another server that has the archives, under their own "
            "names.",
        )
        subparser.add_argument(
            "--unofficial",
            type=bool,
            default=False,
            help="Accept archives whose checksum or number of images is not the official one: a "
            "part of the data set, or a copy that somebody packed again.",
        )
        if name == "coco2014":
            subparser.add_argument(
                "--overlap",
                type=Literal["last", "first"],
                default="last",
                help="Which instance covers the others where some overlap: the last of the list, "
                "as in ReCAM's and LPCAM's masks, or the first, as in coco2voc's.",
            )
        commands.add_subcommand(name, subparser, help=description.partition("\n")[0])
    subparser = Parser(description=CHECK)
    if reads_data:
        _add_check_options(subparser)
    commands.add_subcommand("check", subparser, help="Read every file of a data set and sum it up.")
    subparser = Parser(description=DEGRADE)
    if reads_data:
        _add_degrade_options(subparser)
    commands.add_subcommand(
        "degrade", subparser, help="Write masks with errors: what does a training survive?"
    )
    subparser = Parser(description=ID_LIST)
    if reads_data:
        from deeplab_lit.prepare.id_list import add_options

        add_options(subparser)
    commands.add_subcommand("id_list", subparser, help="Write lists of labeled images, and rest.")
    return parser


def _add_check_options(parser: Parser) -> None:
    from deeplab_lit.data import SegmentationData

    parser.add_argument(
        "--config", action="config", help="Configuration of a run, of which the data counts."
    )
    parser.add_subclass_arguments(SegmentationData, "data", required=True)
    for section in FURTHER_DATA:
        parser.add_subclass_arguments(SegmentationData, section, required=False)
    parser.add_argument(
        "--plot",
        type=str | None,
        default=None,
        help="Picture of the table, to be written. Default: data_check/<data set>.png",
    )
    parser.add_argument(
        "--weights",
        type=str | None,
        default=None,
        help="File to write: pixels of each class of the training split, and weights by two rules "
        "(ENet's, median frequency), for fit --model.loss ClassWeighted.",
    )
    parser.add_argument(
        "--num_workers", type=int, default=min(os.cpu_count() or 1, 8), help="Threads that read."
    )


def _add_degrade_options(parser: Parser) -> None:
    from deeplab_lit.data import SegmentationData
    from deeplab_lit.prepare.mask_errors import MaskErrors

    parser.add_argument(
        "--config", action="config", help="Configuration of a run, of which --data counts."
    )
    parser.add_subclass_arguments(SegmentationData, "data", required=True)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="Folder of the results: masks/, as --data.mask_dir takes them, degraded.json with "
        "how good they are, examples.png.",
    )
    parser.add_class_arguments(MaskErrors)
    parser.add_argument("--seed", type=int, default=0, help="Another number: other errors.")
    parser.add_argument(
        "--num_workers", type=int, default=min(os.cpu_count() or 1, 8), help="Threads that write."
    )


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0, or 1 where a check has found problems."""
    with plain_errors():
        argv = joined_configs(sys.argv[1:] if args is None else args)
        reads_data = argv[:1] in (["check"], ["degrade"], ["id_list"])
        parser = build_parser(reads_data)
        contents = {name: data_sections(name) for name in configs(argv)} if reads_data else {}
        if argv[:1] != ["check"]:
            for content, section in product(contents.values(), FURTHER_DATA):
                content.pop(section, None)
        options = parse(parser, argv, contents, [*DATA_SETS, "check", "degrade", "id_list"])
        if options.name == "check":
            return _check(parser, options, argv[1:])
        if options.name == "degrade":
            _degrade(parser, options, argv[1:])
            return 0
        if options.name == "id_list":
            _write_id_lists(parser, options, argv[1:])
            return 0
        _prepare(options.name, options[options.name])
    return 0


def data_sections(config: str) -> dict[str, Any]:
    """Read the sections of a run's configuration that name data sets, and leave out all others.

    Raises:
        ConfigError: it cannot be read.
    """
    content = with_todays_names(read_config(config))
    further = {key: content[key] for key in FURTHER_DATA if content.get(key) is not None}
    return further | ({"data": content["data"]} if "data" in content else {})


def _check(parser: Parser, options: Namespace, argv: Sequence[str]) -> int:
    from deeplab_lit.prepare.data_check import check

    with refused_arguments():
        checked = parser.instantiate(options).check
    val, unlabeled = (checked.get(section) for section in FURTHER_DATA)
    plot, workers, weights = checked.plot, checked.num_workers, checked.weights
    code = check(checked.data, plot, workers, val, unlabeled, weights)
    if not code:
        same = words_of(argv, ("--config", "--data", "--val_data", "--unlabeled_data"))
        say(f"Next        {command('deeplab_lit.fit', *same)}")
    return code


def _degrade(parser: Parser, options: Namespace, argv: Sequence[str]) -> None:
    from deeplab_lit.prepare.degrade import MASKS, degrade
    from deeplab_lit.prepare.mask_errors import MaskErrors

    with refused_arguments():
        given = parser.instantiate(options).degrade
    errors = MaskErrors(**{field.name: given[field.name] for field in fields(MaskErrors)})
    degrade(given.data, given.out, errors, given.seed, given.num_workers)
    masks, same = str(given.out / MASKS), words_of(argv, ("--config", "--data"))
    scored = ["--data.val_split", given.data.train_split, "--void_as", "skip"]
    say(
        f"Masks       {from_here(masks)}",
        f"To score    {command('deeplab_lit.validate', '--masks', masks, *same, *scored)}",
        f"Next        {command('deeplab_lit.fit', *same, '--data.mask_dir', masks)}",
    )


def _write_id_lists(parser: Parser, options: Namespace, argv: Sequence[str]) -> None:
    from deeplab_lit.prepare.id_list import write_id_lists

    with refused_arguments():
        given = parser.instantiate(options).id_list
    write_id_lists(given)
    if given.data is not None:
        same = words_of(argv, ("--config", "--data"))
        say(f"Next        {command('deeplab_lit.fit', *same, '--data.ids', str(given.out))}")


def _prepare(name: str, options: Namespace) -> None:
    from deeplab_lit.prepare.archives import Source, alone_in

    root, mirror, unofficial = (options.pop(key) for key in ("root", "mirror", "unofficial"))
    root = root.expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--root {root} cannot be made ({error.strerror})") from error
    with alone_in(root):
        hint = prepare_functions()[name](Source(root, mirror, unofficial), **vars(options))
    say(
        f"{name} is in place; archives in {root} can be deleted.",
        f"Next        {command('deeplab_lit.prepare', 'check', *shlex.split(hint))}",
    )


if __name__ == "__main__":
    # as an exception, so that a pool of processes is ended too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
