"""python -m deeplab_lit.convert: turn other projects' weight files into checkpoints; see --help.

Reads the authors' .caffemodel files, the .pth files of kazuto1011, isht7, AdaptSegNet and
torchvision, and our own. What comes out takes RGB 0…255, gives the source network's logits, says
where it comes from, and is what `validate`, `predict`, `deeplab_lit.load` and `--model.weights`
take.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
from jsonargparse import Namespace

from deeplab_lit import __version__
from deeplab_lit.atomic import atomic_torch_save
from deeplab_lit.cli.checks import check_order
from deeplab_lit.cli.parser import Parser, parse
from deeplab_lit.cli.screen import command
from deeplab_lit.data.class_names import class_names
from deeplab_lit.data.image import DataError
from deeplab_lit.errors import plain_errors
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.formats import FORMATS, read_source
from deeplab_lit.network.weights.formats.source import Source, drop_head
from deeplab_lit.network.weights.load import WeightsError, backbone_alone, build
from deeplab_lit.runs.folder import named_checkpoint
from deeplab_lit.runs.provenance import INITS, UNKNOWN, Provenance
from deeplab_lit.text import first_few, plural
from deeplab_lit.types import Classes


def checkpoint_of(
    source: Source,
    path: Path,
    classes: Classes | None,
    provenance: Provenance,
    allow_missing: tuple[str, ...] = (),
) -> tuple[dict[str, Any], list[str]]:
    """A checkpoint in the shape of fit's, and the names of weights that the file did not have.

    Args:
        source: the file, read.
        path: named in errors.
        classes: name → color; null for a file without a head.
        provenance: to put in.
        allow_missing: our names of weights that may stay as they are initialized.

    Raises:
        WeightsError: it does not fit its own network, or nothing that may be missing is.
    """
    if classes is None:
        state = backbone_alone(source, path, allow_missing)
    else:
        state = build(source, path, allow_missing).state_dict()
    for name in allow_missing:
        if name in source.state or name not in state:
            what = "the file has it" if name in source.state else "the network has no such weight"
            raise WeightsError(f"--allow_missing {name}: {what}. Leave the option out")
    settings = {"weights": "none", **source.network}
    if classes is not None:
        settings["classes"] = {name: list(color) for name, color in classes.items()}
    checkpoint = {
        "state_dict": {f"net.{key}": value.contiguous() for key, value in state.items()},
        "hyper_parameters": settings,
        "provenance": provenance.as_dict(),
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
    }
    if source.label_values is not None and classes is not None:
        checkpoint["label_values"] = source.label_values
    missing = sorted(state.keys() - source.state.keys())
    return checkpoint, [name for name in missing if not name.endswith("num_batches_tracked")]


def report(source: Source, missing: list[str], provenance: Provenance) -> str:
    """What was copied, skipped and why, and missing; and what the network is."""
    net = DeepLabV2.__init__.__kwdefaults__ | source.network
    lines = [
        f"Format      {source.format}",
        f"Network     {net['backbone']}, output stride {net['output_stride']}, "
        + (
            f"{net['head']} {list(net['atrous_rates'])}, scales {list(net['scales'])}, "
            f"{plural(source.num_classes, 'class')}"
            if source.num_classes is not None
            else "without a head: for the start of a training"
        ),
        f"Style       {net['style']}, align_corners {str(net['align_corners']).lower()}",
        f"Copied      {len(source.copied)} weights",
    ]
    reasons: dict[str, list[str]] = {}
    for key, reason in source.skipped.items():
        reasons.setdefault(reason, []).append(key)
    for reason, keys in reasons.items():
        lines.append(f"Skipped     {len(keys)}, {reason}: {first_few(keys)}")
    if missing:
        lines.append(f"Missing     {len(missing)}, initialized at random: {first_few(missing)}")
    lines += [
        f"Init        {provenance.init}",
        f"Trained on  {', '.join(provenance.trained_on) or 'no segmentation data set'}",
        f"SHA-256     {provenance.sha256}",
    ]
    return "\n".join(lines)


def build_parser() -> Parser:
    """The options."""
    parser = Parser(prog="python -m deeplab_lit.convert", description=__doc__)
    parser.add_argument(
        "file", type=str, help='The weight file; "last": the best of ours in runs/.'
    )
    parser.add_argument("out", type=str, help="The checkpoint to write.")
    parser.add_argument(
        "--format",
        type=str | None,
        default=None,
        help=f"One of {', '.join(FORMATS)}. Default: recognized from the names in the file.",
    )
    parser.add_argument(
        "--branches",
        type=int | None,
        default=None,
        help="Keep the first so many branches of an isht7 or adaptsegnet head: 2 for what "
        "AdaptSegNet's own code trained.",
    )
    parser.add_argument(
        "--data_classes",
        type=str | None,
        default=None,
        help='Names of the classes: "voc", "cityscapes", "coco_stuff", or a file with a name a '
        "line. Default: by their number.",
    )
    parser.add_argument(
        "--init",
        type=str | None,
        default=None,
        help=f"What the backbone was first trained on: {', '.join(INITS)}. Default: known for "
        "published files by their names.",
    )
    parser.add_argument(
        "--trained_on",
        type=str,
        nargs="+",
        default=None,
        help='Splits that the weights have seen, like VOC:train_aug; "none" if they were never '
        'trained to segment (a head is left out then); "unknown". Default: known for published '
        "files by their names.",
    )
    parser.add_argument(
        "--ignore",
        type=str,
        nargs="+",
        default=[],
        help="Names in the file to leave out; of a .caffemodel also names of layers.",
    )
    parser.add_argument(
        "--allow_missing",
        type=str,
        nargs="+",
        default=[],
        help="Our names of weights that the file may not have; they are initialized at random.",
    )
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    with plain_errors():
        _convert(parse(build_parser(), sys.argv[1:] if args is None else args))


def _convert(options: Namespace) -> None:
    file, out = Path(named_checkpoint(options.file)), Path(options.out).expanduser()
    for name, known in (("format", FORMATS), ("init", (*INITS, UNKNOWN))):
        if options[name] not in (None, *known):
            raise WeightsError(f"--{name} {options[name]}: expected one of {', '.join(known)}")
    if out.exists():
        raise WeightsError(f"{out} exists already: choose another name")
    trained_on = _splits(options.trained_on)
    source = read_source(file, options.format, options.branches, options.ignore)
    provenance = Provenance.from_file(file, source)
    by_name = source.provenance is None and UNKNOWN not in provenance.trained_on
    provenance = replace(
        provenance,
        init=options.init or provenance.init,
        trained_on=provenance.trained_on if trained_on is None else tuple(trained_on),
    ).extended(__version__)
    if source.num_classes is not None and not provenance.trained_on:
        drop_head(source, "a head, but of weights that were trained on no segmentation data set")
    if source.num_classes is None and options.data_classes:
        raise WeightsError(
            f"--data_classes {options.data_classes}: {file} has no head that was trained, so it "
            "has no classes to name. Leave the option out"
        )
    classes = source.classes
    if source.num_classes is not None and (classes is None or options.data_classes):
        classes = class_names(source.num_classes, options.data_classes)
        if source.classes is not None:
            check_order(list(source.classes), list(classes), options.file, "--data_classes'")
    allowed = tuple(options.allow_missing)
    checkpoint, missing = checkpoint_of(source, file, classes, provenance, allowed)
    atomic_torch_save(checkpoint, out)
    print(report(source, missing, provenance))
    if by_name and trained_on is None:
        print(f"            known by the name {file.name}; --trained_on says otherwise")
    if classes is not None:
        print(f"Classes     {first_few(list(classes))}")
    print(f"Written     {out} ({out.stat().st_size / 1e6:,.0f} MB)")
    style = source.network.get("style", "torchvision")
    print(f"Next        {_next(out, style, trained=classes is not None)}")


def _splits(given: list[str] | None) -> list[str] | None:
    """--trained_on as provenance has it: nothing for "none"; null where it was not given."""
    if given == ["none"]:
        return []
    for entry in given or []:
        if entry != UNKNOWN and not all(entry.rpartition(":")):
            raise DataError(
                f"--trained_on {entry}: expected DATA:SPLIT, like VOC:train_aug; or {UNKNOWN}; or "
                "none alone"
            )
    return given


def _next(out: Path, style: str, *, trained: bool) -> str:
    if trained:
        begun = command("deeplab_lit.validate", "--ckpt_path", str(out))
    else:
        begun = command("deeplab_lit.fit", "--model.style", style, "--model.weights", str(out))
    return f"{begun} --data … --data.root …"


if __name__ == "__main__":
    main()
