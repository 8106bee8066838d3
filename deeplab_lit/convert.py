"""python -m deeplab_lit.convert: turn other projects' weight files into checkpoints; see --help.

Reads the authors' .caffemodel files, the .pth files of kazuto1011, isht7, AdaptSegNet and
torchvision, and our own; --list shows which can be had by name, like kazuto1011/voc12. The
checkpoint's network takes RGB 0…255 and gives the source network's logits. The checkpoint says
where it comes from, and is what `validate`, `predict`, `deeplab_lit.load` and `--model.weights`
take.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from deeplab_lit import __version__
from deeplab_lit.cli.parser import Parser, parse
from deeplab_lit.errors import UserError, plain_errors
from deeplab_lit.network.weights import FORMATS
from deeplab_lit.terminal import command
from deeplab_lit.text import first_few, plural, say

if TYPE_CHECKING:  # what needs torch is imported by the functions that use it: --help is quick
    from deeplab_lit.network.weights.formats.source import Source
    from deeplab_lit.runs.provenance import Provenance
    from deeplab_lit.types import Classes

SCORED_ON = {21: "VOC", 19: "Cityscapes", 182: "CocoStuff164k"}  # by the number of classes


class ConvertError(UserError, ValueError):
    """A file cannot be converted as it was asked for; says the option and what to do."""


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="python -m deeplab_lit.convert",
        description=__doc__,
        examples=["python -m deeplab_lit.convert deeplabv2_resnet101_msc-vocaug.pth voc12.ckpt"],
    )
    parser.add_argument(
        "file",
        type=str,
        help='The weight file; "last": the best of ours in runs/; or a name of --list.',
    )
    parser.add_argument("out", type=str, help="The checkpoint to write.")
    parser.add_argument(
        "--list", action="store_true", help="Alone: show the published weights that have names."
    )
    values = {
        "--format": f"One of {', '.join(FORMATS)}. Default: recognized from the names in the file.",
        "--branches": "Keep the first so many branches of an isht7 or adaptsegnet head: 2 for what "
        "AdaptSegNet's own code trained.",
        "--data_classes": 'Names of the classes: "voc", "cityscapes", "coco", "coco_stuff", or a '
        "file with a name a line. Default: by their number.",
        "--init": "What the backbone was first trained on: imagenet, coco, none. Default: known "
        "for published files by their names.",
    }
    for name, text in values.items():
        kind = int if name == "--branches" else str
        parser.add_argument(name, type=kind | None, default=None, help=text)
    lists = {
        "--trained_on": 'Splits that the weights have seen, like VOC:train_aug; "none" if they '
        'were never trained to segment (a head is left out then); "unknown". Default: known for '
        "published files by their names.",
        "--ignore": "Names in the file to leave out; of a .caffemodel also names of layers.",
        "--allow_missing": "Our names of weights that the file may not have; they are initialized "
        "at random.",
    }
    for name, text in lists.items():
        parser.add_argument(name, type=str, nargs="+", default=[], help=text)
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    with plain_errors():
        argv = sys.argv[1:] if args is None else list(args)
        if "--list" in argv:
            if len(argv) > 1:
                raise ConvertError("--list converts nothing: give it alone")
            print(published_list())
            return
        convert(parse(build_parser(), argv))


def convert(options: Namespace) -> None:
    """Convert a file as the options say, and print what became of its weights.

    Raises:
        UserError: an option or the file is refused; nothing is written then.
    """
    from deeplab_lit.atomic import atomic_torch_save
    from deeplab_lit.network.weights.formats import read_source
    from deeplab_lit.network.weights.formats.source import drop_head
    from deeplab_lit.runs.conversion import checkpoint_of
    from deeplab_lit.runs.folder import named_checkpoint
    from deeplab_lit.runs.provenance import INITS, UNKNOWN, Provenance

    out = Path(options.out).expanduser()
    for name, choices in (("format", FORMATS), ("init", (*INITS, UNKNOWN))):
        if options[name] not in (None, *choices):
            raise ConvertError(f"--{name} {options[name]}: expected one of {', '.join(choices)}")
    if out.exists():
        raise ConvertError(f"{out} exists already: choose another name")
    splits = _splits(options.trained_on, UNKNOWN)

    file = Path(named_checkpoint(options.file))
    source = read_source(file, options.format, options.branches, options.ignore)
    provenance = Provenance.from_file(file, source, options.init)
    is_published = source.provenance is None and UNKNOWN not in provenance.trained_on
    provenance = replace(
        provenance,
        trained_on=provenance.trained_on if splits is None else splits,
    ).extended(__version__)
    if source.num_classes is not None and not provenance.trained_on:
        drop_head(source, "a head, but of weights that were trained on no segmentation data set")
    classes = _classes(source, options.data_classes, options.file)

    allow_missing = tuple(options.allow_missing)
    checkpoint, missing = checkpoint_of(source, file, classes, provenance, allow_missing)
    atomic_torch_save(checkpoint, out)

    say(report(source, missing, provenance))
    if is_published and splits is None:
        say(f"            known by the name {file.name}; --trained_on says otherwise")
    if classes is not None:
        say(f"Classes     {first_few(list(classes))}")
    say(f"Written     {out} ({out.stat().st_size / 1e6:,.0f} MB)")
    say(f"Next        {_next_command(out, source)}")


def published_list() -> str:
    """Return a paragraph for each published file that has a name, and where they are kept."""
    from deeplab_lit.network.weights.fetch import folder, place_of
    from deeplab_lit.network.weights.published import NAMED
    from deeplab_lit.network.weights.read import HASH_IN_NAME

    lines = []
    for name, entry in NAMED.items():
        what = plural(entry.classes, "class") if entry.classes else "no head, to train from"
        trained_on = ", then ".join([entry.init, *entry.trained_on])
        if entry.branches:
            what += f", the first {entry.branches} branches of its head"
        safety = "http" if entry.is_plain_http else "https"
        safety += ", hash in its name" if HASH_IN_NAME.search(entry.file) else ", no hash known"
        lines += [
            f"{name}  ({entry.backbone}, {what})",
            f"    trained on  {trained_on}" + (f"; {entry.about}" if entry.about else ""),
            f"    quoted      mIoU on {entry.quoted.in_words()}" if entry.quoted else "",
            f"    from        {entry.url}" + (f", {entry.file}" if entry.is_zipped else ""),
            f"    license     {entry.license}; {safety}",
            f"    here        {place_of(entry)}" if place_of(entry).is_file() else "",
        ]
    lines.append(f"Downloaded once, when they are named, into {folder()} (variable TORCH_HOME)")
    return "\n".join(line for line in lines if line)


def _splits(typed: list[str], unknown: str) -> tuple[str, ...] | None:
    """Return --trained_on as provenance has it: () for "none"; None: it was not typed."""
    if not typed:
        return None
    if typed == ["none"]:
        return ()
    for entry in typed:
        if entry != unknown and not all(entry.rpartition(":")):
            raise ConvertError(
                f"--trained_on {entry}: expected DATA:SPLIT, like VOC:train_aug; or {unknown}; or "
                "none alone"
            )
    return tuple(typed)


def _classes(source: "Source", data_classes: str | None, file: str) -> "Classes | None":
    """Return the classes of the head, from --data_classes, the file, or their number.

    None: the file has no head that was trained.
    """
    from deeplab_lit.data import class_names
    from deeplab_lit.network.weights.start import check_order

    if source.num_classes is None:
        if data_classes:
            raise ConvertError(
                f"--data_classes {data_classes}: {file} has no head that was trained, so it has "
                "no classes to name. Leave the option out"
            )
        return None
    if source.classes is not None and not data_classes:
        return source.classes
    classes = class_names(source.num_classes, data_classes)
    if source.classes is not None:
        check_order(list(source.classes), list(classes), file, "--data_classes'")
    return classes


def report(source: "Source", missing: list[str], provenance: "Provenance") -> str:
    """Say what the network is, and what was copied, skipped and why, and missing."""
    from deeplab_lit.network.deeplab import default_settings

    settings = default_settings() | source.network
    lines = [
        f"Format      {source.format}",
        f"Network     {settings['backbone']}, output stride {settings['output_stride']}, "
        + (
            f"{settings['head']} {list(settings['atrous_rates'])}, "
            f"scales {list(settings['scales'])}, {plural(source.num_classes, 'class')}"
            if source.num_classes is not None
            else "without a head: for the start of a training"
        ),
        f"Style       {settings['style']}, align_corners {str(settings['align_corners']).lower()}",
        f"Copied      {len(source.copied)} weights",
    ]
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in source.skipped.items():
        names_by_reason.setdefault(reason, []).append(name)
    for reason, names in names_by_reason.items():
        lines.append(f"Skipped     {len(names)}, {reason}: {first_few(names)}")
    if missing:
        lines.append(f"Missing     {len(missing)}, initialized at random: {first_few(missing)}")
    lines += [
        f"Init        {provenance.init}" + (f": {provenance.about}" if provenance.about else ""),
        f"Trained on  {', '.join(provenance.trained_on) or 'no segmentation data set'}",
        f"SHA-256     {provenance.sha256}",
    ]
    return "\n".join(lines)


def _next_command(out: Path, source: "Source") -> str:
    """Return the command line to type next: `validate`, or `fit` for a file without a head."""
    if source.num_classes is not None:
        words = ["deeplab_lit.validate", "--ckpt_path", str(out)]
    else:
        style = source.network.get("style", "torchvision")
        words = ["deeplab_lit.fit", "--model.style", style, "--model.weights", str(out)]
    data = SCORED_ON.get(source.num_classes or 21, "Folder")
    return f"{command(*words)} --data {data} --data.root DIR"


if __name__ == "__main__":
    main()
