"""The options of predict, and which of them do not go together."""

import os
from collections.abc import Sequence
from typing import Literal

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt

from deeplab_lit.cli.options import add_crf
from deeplab_lit.cli.parser import Parser, UsageError
from deeplab_lit.network.inference import DEVICE_HELP, Inference
from deeplab_lit.runs.folder import CHECKPOINT_HELP
from deeplab_lit.segment.submission import Server
from deeplab_lit.workers import check_workers

Values = Literal["indices", "labels"]
Precision = Literal["float32", "bfloat16", "float16"]
USAGE = "python -m deeplab_lit.predict --ckpt_path FILE --images FILE… --out DIR [options]"
EXAMPLES = [
    "python -m deeplab_lit.predict --ckpt_path kazuto1011/voc12 --images photos --out predictions",
    "python -m deeplab_lit.predict --ckpt_path last --images film.mp4 --out predictions --crf",
]
TOPICS = {
    "Input and output": ["ckpt_path", "images", "ids", "all_but", "out", "config"],
    "Evaluation": ["eval"],
    "CRF": ["crf"],
    "Masks and overlays": ["mask_values", "opacity", "legend", "video_masks"],
    "Test servers": ["submission"],
    "Pseudo-labels": ["pseudo_labels", "min_confidence", "image_labels", "probabilities"],
    "Machine": ["device", "precision", "num_workers"],
}


def build_parser(description: str) -> Parser:
    """Return the parser of the command.

    Args:
        description: above the options in its help.
    """
    parser = Parser(
        prog="python -m deeplab_lit.predict",
        usage=USAGE,
        description=description,
        topics=TOPICS,
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("--config", action="config", help="Read options from a YAML file.")
    add("--ckpt_path", type=str, required=True, help=CHECKPOINT_HELP)
    add("--images", type=str, nargs="+", required=True,
        help="Files, folders (searched through) and globs; also videos, and webcam:0.",
    )  # fmt: skip
    add("--ids", type=str | None, default=None,
        help="A list, an image a line: others are left out. Of --submission: the official one.",
    )  # fmt: skip
    add("--all_but", type=str | None, default=None,
        help="A list of images to leave out, as the labeled ones of a subset.",
    )  # fmt: skip
    add("--out", type=str, required=True, help="Folder for the results.")
    add("--eval", type=Inference, default=Inference())
    add_crf(parser)
    add("--submission", type=Server | None, default=None,
        help="Write label maps as a test server takes them, check and archive them.",
    )  # fmt: skip
    add("--pseudo_labels", action="store_true",
        help="Write masks to train on: void where the network is not sure.")  # fmt: skip
    add("--min_confidence", type=float | str | None, default=None,
        help="Of --pseudo_labels: a probability (default: 0.9); or by class, bdl or cbst:0.2.",
    )  # fmt: skip
    add("--image_labels", type=str | None, default=None,
        help="cls_labels.npy, or lines of id and classes: others of an image get probability 0, "
        "the rest is divided by its sum, before the CRF (which would let absent classes grow).",
    )  # fmt: skip
    add("--probabilities", action="store_true",
        help="Keep probabilities too, after the CRF: probabilities/<name>.npz, for refine.",
    )  # fmt: skip
    add("--mask_values", type=Values, default="indices",
        help="What masks hold: class indices, or the values of the label files trained on.",
    )  # fmt: skip
    add("--opacity", type=float, default=0.5, help="Of the overlays' colors.")
    add("--legend", type=bool, default=True,
        help="Of images: a strip below each overlay names the classes in it; false: none.",
    )  # fmt: skip
    add("--video_masks", type=bool, default=False,
        help="Of videos and webcams: a palette PNG of class indices for each frame too.",
    )  # fmt: skip
    add("--device", type=str, default="auto", help=DEVICE_HELP)
    add("--precision", type=Precision, default="float32",
        help="Of the network; bfloat16 or float16 are faster on GPUs, and on CPUs that have them.",
    )  # fmt: skip
    add("--num_workers", type=NonNegativeInt, default=min(os.cpu_count() or 1, 8),
        help="Processes that read images ahead.")  # fmt: skip
    return parser


def check_options(options: Namespace, films: Sequence[str]) -> None:
    """Refuse options that do not go together.

    Args:
        options: of the command line.
        films: videos and webcams among the inputs.

    Raises:
        UsageError: says which.
        WorkersError: there can be no processes that read images.
    """
    check_workers(options.num_workers, "--num_workers")
    if not 0 <= options.opacity <= 1:
        raise UsageError(f"--opacity must be in 0…1, got {options.opacity}")
    for name in ("pseudo_labels", "probabilities"):
        if not isinstance(options[name], bool):  # which a configuration may have
            raise UsageError(f"--{name} is {options[name]!r}, expected true or false")
    for name in ("ids", "all_but", "image_labels"):
        if options[name] == "":
            raise UsageError(f"--{name} got an empty name: give a file, or leave it out")
    if options.min_confidence is not None and not options.pseudo_labels:
        raise UsageError("--min_confidence is of --pseudo_labels, which is not given")
    if options.submission and options.mask_values == "labels":
        raise UsageError("--submission has values of its own: leave out --mask_values")
    for name in ("pseudo_labels", "image_labels", "probabilities", "all_but"):
        if options[name] and options.submission:
            raise UsageError(f"--{name} and --submission do not go together: leave out one")
    for name in ("pseudo_labels", "image_labels", "probabilities", "ids", "all_but", "submission"):
        if options[name] and films:
            raise UsageError(f"--{name} takes images, and {films[0]} is a video")
