"""Weight files of other projects as checkpoints in the shape of fit's.

`convert` writes them; what scores or exports a checkpoint takes such files as they are.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from deeplab_lit import __version__
from deeplab_lit.data import class_names
from deeplab_lit.network.weights import DEEPLAB_LIT
from deeplab_lit.network.weights.formats import source_of
from deeplab_lit.network.weights.formats.source import Source
from deeplab_lit.network.weights.load import backbone_alone, build, check_checkpoint
from deeplab_lit.network.weights.read import WeightsError, read_weight_file
from deeplab_lit.runs.provenance import Provenance
from deeplab_lit.types import Classes


def read_trained(path: str | Path) -> dict[str, Any]:
    """Read a trained network as a checkpoint that `fit` or `convert` wrote.

    Args:
        path: such a checkpoint, or a file of another project, which is converted: its classes are
            those of the data set that has so many, or numbered.

    Raises:
        WeightsError: there is no such file, it holds no trained network, or it is damaged.
    """
    content = read_weight_file(path)
    source = source_of(content, path)
    if source.format == DEEPLAB_LIT:
        check_checkpoint(content, path)
        return content
    classes = {} if source.num_classes is None else class_names(source.num_classes)
    provenance = Provenance.from_file(path, source).extended(__version__)
    return checkpoint_of(source, Path(path), classes, provenance)[0]


def checkpoint_of(
    source: Source,
    path: Path,
    classes: Classes | None,
    provenance: Provenance,
    allow_missing: tuple[str, ...] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Return a checkpoint in the shape of fit's, and the names of weights that the file lacks.

    Args:
        source: the file, read.
        path: named in errors.
        classes: name → color; None for a file without a head.
        provenance: to put in.
        allow_missing: our names of weights that may stay as they are initialized.

    Raises:
        WeightsError: the file does not fit its own network; or a weight that may be missing is
            there, or is none of the network's.
    """
    if classes is None:
        state = backbone_alone(source, path, allow_missing)
    else:
        state = build(source, path, allow_missing).state_dict()
    for name in allow_missing:
        if name in source.state or name not in state:
            reason = "the file has it" if name in source.state else "the network has no such weight"
            raise WeightsError(f"--allow_missing {name}: {reason}. Leave the option out")
    settings = {"weights": "none", **source.network}
    if classes is not None:
        settings["classes"] = {name: list(color) for name, color in classes.items()}
    checkpoint = {
        "state_dict": {f"net.{key}": value.contiguous() for key, value in state.items()},
        "hyper_parameters": settings,
        "provenance": provenance.as_dict(),
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": version("lightning"),
    }
    if source.label_values is not None and classes is not None:
        checkpoint["label_values"] = source.label_values
    missing = sorted(state.keys() - source.state.keys())
    return checkpoint, [name for name in missing if not name.endswith("num_batches_tracked")]
