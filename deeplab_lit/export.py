"""python -m deeplab_lit.export: a network as a file that needs no deeplab_lit; see --help.

The suffix of --out chooses what is written: .onnx for onnxruntime and its like, .pt2 for
torch.export.load, .safetensors for the weights alone. Graphs take images (B,3,H,W) uint8 RGB of any
size and give logits (B,C,H,W). Beside them stand, as JSON, the names of the classes, their colors,
the preprocessing (in a graph done already), the network's arguments, and where it comes from; in a
.safetensors also a checksum, looked at when the file is read here. The file is run against the
network before it gets its name.
"""

import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jsonargparse.typing import PositiveFloat

from deeplab_lit import __version__, load
from deeplab_lit.atomic import atomic_write
from deeplab_lit.cli.parser import Parser, parse
from deeplab_lit.errors import plain_errors
from deeplab_lit.runs.folder import CHECKPOINT_HELP, named_checkpoint
from deeplab_lit.terminal import command, python_line
from deeplab_lit.text import plural, say

if TYPE_CHECKING:  # what needs torch is imported by the functions that use it: --help is quick
    from deeplab_lit.network.deeplab import DeepLabV2
    from deeplab_lit.network.graph import Run

EXAMPLES = ["python -m deeplab_lit.export --ckpt_path last --out net.onnx"]
TOLERANCE = 1e-4  # of the largest logit; float32 in another order of summation stays far below

Facts = dict[str, str]  # name → JSON


class Format(NamedTuple):
    """A format: turns a network into the content of a file, and runs a file."""

    content: Callable[["DeepLabV2", Facts], bytes]
    open: Callable[[Path], "Run"]


def _onnx(net: "DeepLabV2", facts: Facts) -> bytes:
    import onnxruntime  # noqa: F401 - a missing one is said before the work, not behind it
    import onnxscript  # noqa: F401
    import torch

    from deeplab_lit.network.graph import image_graph

    program = torch.onnx.export(
        image_graph(net),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: "batch", 2: "height", 3: "width"}},
        dynamo=True,
        verbose=False,
    )
    if program is None:  # torch writes a file itself, where it is given one
        raise RuntimeError("torch.onnx.export has made no program")
    program.model.metadata_props.update(facts)
    return program.model_proto.SerializeToString()


def _open_onnx(path: Path) -> "Run":
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _pt2(net: "DeepLabV2", facts: Facts) -> bytes:
    import torch

    from deeplab_lit.network.graph import image_graph

    content = io.BytesIO()
    torch.export.save(image_graph(net), content, extra_files=facts)
    return content.getvalue()


def _open_pt2(path: Path) -> "Run":
    import torch

    return torch.export.load(path).module()


def _safetensors(net: "DeepLabV2", facts: Facts) -> bytes:
    import safetensors.torch

    from deeplab_lit.network.weights.read import CHECKSUM, content_sha256

    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    checksum = {CHECKSUM: json.dumps(content_sha256(state, facts))}
    return safetensors.torch.save(state, facts | checksum)


def _open_safetensors(path: Path) -> "Run":
    import safetensors.torch

    from deeplab_lit.network.deeplab import DeepLabV2

    with safetensors.safe_open(path, "pt") as file:
        facts = {name: json.loads(value) for name, value in file.metadata().items()}
    net = DeepLabV2(len(facts["classes"]), **facts["network"])
    net.load_state_dict(safetensors.torch.load_file(path))
    return net.eval()


# suffix → Python that prints the shape of the logits of a file
RUNS = {
    ".onnx": "import numpy, onnxruntime; "
    "print(onnxruntime.InferenceSession({}).run(None, "
    "dict(images=numpy.zeros((1, 3, 321, 321), numpy.uint8)))[0].shape)",
    ".pt2": "import torch; "
    "print(torch.export.load({}).module()(torch.zeros(1, 3, 321, 321, dtype=torch.uint8)).shape)",
}
FORMATS = {
    ".onnx": Format(_onnx, _open_onnx),
    ".pt2": Format(_pt2, _open_pt2),
    ".safetensors": Format(_safetensors, _open_safetensors),
}


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(prog="python -m deeplab_lit.export", description=__doc__, examples=EXAMPLES)
    parser.add_argument("--ckpt_path", type=str, required=True, help=CHECKPOINT_HELP)
    parser.add_argument("--out", type=str, required=True, help="*.onnx, *.pt2 or *.safetensors.")
    parser.add_argument(
        "--eval.scales",
        type=tuple[PositiveFloat, ...] | None,
        default=None,
        help="Sizes at which images go through the network. Default: those of its training.",
    )
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    with plain_errors():
        options = parse(build_parser(), sys.argv[1:] if args is None else args)
        out = Path(options.out)
        check_out(out)  # before weights are downloaded
        checkpoint = named_checkpoint(options.ckpt_path)
        net = load(checkpoint)
        net.scales = options.eval.scales or net.scales
        difference = export(net, facts_of(net, checkpoint), out)
        say(
            f"Written     {out}: {out.stat().st_size / 1e6:.1f} MB, "
            f"{plural(len(net.classes), 'class')}, "
            f"scales {', '.join(f'{scale:g}' for scale in net.scales)}",
            f"Checked     its logits differ from the network's by {difference:.1e} of the largest "
            "at most",
            f"Next        {how_to_run(out)}",
        )


def check_out(out: Path) -> None:
    """Refuse a file that cannot be written.

    Raises:
        ExportError: its suffix is none of FORMATS, or it exists.
    """
    from deeplab_lit.network.graph import ExportError

    if out.suffix not in FORMATS:
        raise ExportError(f"--out {out}: its suffix must be one of {', '.join(FORMATS)}")
    if out.exists():
        raise ExportError(f"{out} exists already: choose another --out")


def how_to_run(out: Path) -> str:
    """Return a command line that runs an exported file; a graph on a black image."""
    if out.suffix == ".safetensors":
        return f"{command('deeplab_lit.predict', '--ckpt_path', str(out))} --images DIR --out masks"
    return python_line(RUNS[out.suffix].format(repr(str(out))))


def facts_of(net: "DeepLabV2", ckpt_path: str | Path) -> Facts:
    """Return what an exported file says of itself, each value as JSON.

    Args:
        net: of the checkpoint, with the scales to export.
        ckpt_path: where the rest is read.

    Returns:
        deeplab_lit: our version; classes: names in the order of the class indices; palette: their
        RGB colors; preprocessing: mean and std in 0…255; network: the arguments of DeepLabV2;
        checkpoint: name and SHA-256; label_values and provenance: the checkpoint's own, where it
        has them.

    Raises:
        WeightsError: it holds no trained network.
    """
    from deeplab_lit.network.deeplab import default_settings
    from deeplab_lit.network.weights.read import sha256_of
    from deeplab_lit.runs.conversion import read_trained
    from deeplab_lit.runs.provenance import without_commands

    checkpoint = read_trained(ckpt_path)
    settings = checkpoint["hyper_parameters"]
    network = {name: settings.get(name, value) for name, value in default_settings().items()}
    facts = {
        "deeplab_lit": __version__,
        "classes": list(net.classes),
        "palette": list(net.classes.values()),
        "preprocessing": {
            "channels": "RGB",
            "range": [0, 255],
            "mean": net.preprocess.mean.flatten().tolist(),
            "std": net.preprocess.std.flatten().tolist(),
        },
        "network": network | {"scales": net.scales, "aux_head": False},
        "checkpoint": {"file": Path(ckpt_path).name, "sha256": sha256_of(ckpt_path)},
    }
    if net.label_values is not None:
        facts["label_values"] = net.label_values
    if "provenance" in checkpoint:
        facts["provenance"] = without_commands(checkpoint["provenance"])
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def export(net: "DeepLabV2", facts: Facts, out: Path) -> float:
    """Write and check a file; there is none at `out` until it has passed.

    Args:
        net: as `deeplab_lit.load` gives it.
        facts: to be kept in the file.
        out: its suffix is one of FORMATS.

    Returns:
        The largest difference between the file's logits and the network's.

    Raises:
        ExportError: another suffix, something stands at `out` already, or the difference is above
            TOLERANCE.
        WriteError: nothing can be written there.
    """
    from deeplab_lit.network.graph import ExportError, largest_difference

    check_out(out)
    form = FORMATS[out.suffix]
    with atomic_write(out) as place:
        say(f"Writing     {out}", file=sys.stderr)
        place.write_bytes(form.content(net, facts))
        say("Checking    its logits, on images of three sizes", file=sys.stderr)
        difference = largest_difference(form.open(place), net)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{out} is not written: its logits differ from the network's by {difference:.1e} "
                f"of the largest, at most {TOLERANCE:.0e} is expected. Another of "
                f"{', '.join(FORMATS)} may do better; please report it."
            )
    return difference


if __name__ == "__main__":
    main()
