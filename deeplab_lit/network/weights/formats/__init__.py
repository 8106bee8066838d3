"""Weight files of other projects, converted to our names: `read_source` reads any of them."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor

from deeplab_lit.network.weights import (
    ADAPTSEGNET,
    CAFFE,
    DEEPLAB_LIT,
    FORMATS,
    ISHT7,
    KAZUTO1011,
    TORCHVISION,
)
from deeplab_lit.network.weights.formats.caffe_names import from_caffe, is_caffe
from deeplab_lit.network.weights.formats.isht7 import (
    ADVSEMISEG,
    from_adaptsegnet,
    from_isht7,
    has_branches,
    prefix_of,
)
from deeplab_lit.network.weights.formats.kazuto1011 import from_kazuto1011, is_kazuto1011
from deeplab_lit.network.weights.formats.own import from_own, is_own
from deeplab_lit.network.weights.formats.source import (
    Source,
    StateDict,
    count_pretraining_classes,
    drop_untrained_head,
)
from deeplab_lit.network.weights.formats.torchvision import (
    from_torchvision,
    is_torchvision,
    refuse_caffes_by_name,
)
from deeplab_lit.network.weights.published import trained_branches
from deeplab_lit.network.weights.read import WeightsError, read_weight_file


def read_source(
    path: str | Path,
    format: str | None = None,
    branches: int | None = None,
    ignore: Iterable[str] = (),
) -> Source:
    """Read the weights of any file that the project can read, under our names.

    Args:
        path: the file.
        format: one of FORMATS; None: recognized from the names in the file.
        branches: how many of the branches of an isht7 or adaptsegnet head to keep; None: all.
        ignore: names in the file to leave out; of Caffe's files also names of layers.

    Raises:
        WeightsError: the file cannot be read, is of no known format, holds unknown names, or none
            of a name to leave out.
    """
    return source_of(read_weight_file(path), path, format, branches, ignore)


def source_of(
    content: dict[str, Any],
    path: str | Path,
    format: str | None = None,
    branches: int | None = None,
    ignore: Iterable[str] = (),
) -> Source:
    """Convert an already loaded file, which its name may tell more of; as `read_source`.

    Args:
        content: of the file.
        path: of the file.
        format: as in `read_source`.
        branches: as in `read_source`; None: of a published file those that were trained.
        ignore: as in `read_source`.

    Raises:
        WeightsError: as `read_source`.
    """
    name = Path(path).name
    try:
        names = _state_dict(content)
        if format is None and ADVSEMISEG in name and not is_own(names):
            format = ADAPTSEGNET
        format = format or recognize(names)
        if branches is None and format == ADAPTSEGNET:
            branches = trained_branches(name)
        source = translate(content, format, branches, ignore)
        if source.format == TORCHVISION:
            refuse_caffes_by_name(name)
        return source
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def translate(
    content: dict[str, Any],
    format: str | None = None,
    branches: int | None = None,
    ignore: Iterable[str] = (),
) -> Source:
    """Convert an already loaded file; like `read_source`, without the file's name in errors."""
    all_weights = _state_dict(content)
    format = format or recognize(all_weights)
    state = _without(all_weights, set(ignore))
    if branches is not None and format not in (ISHT7, ADAPTSEGNET):
        raise WeightsError(f"--branches is for {ISHT7} and {ADAPTSEGNET}, the file is of {format}")
    source = _translated(content, state, format, branches)
    source.pretraining_classes = count_pretraining_classes(source, state)
    source.skipped |= {key: "ignored, as asked" for key in all_weights if key not in state}
    if format != DEEPLAB_LIT and branches is None:
        drop_untrained_head(source)
    return source


def _translated(
    content: dict[str, Any], state: StateDict, format: str, branches: int | None
) -> Source:
    """Call the function of a format."""
    if format == CAFFE:
        return from_caffe(state)
    if format == KAZUTO1011:
        return from_kazuto1011(state)
    if format == ISHT7:
        return from_isht7(state, branches)
    if format == ADAPTSEGNET:
        return from_adaptsegnet(state, branches)
    if format == TORCHVISION:
        return from_torchvision(state)
    return from_own(content, state)


def _without(state: StateDict, ignore: set[str]) -> StateDict:
    """Leave out weights by their name, or by their layer in a Caffe file."""
    layers = {key: key.partition("/")[0] for key in state}
    for name in ignore:
        if name not in state and name not in layers.values():
            names = [*layers.values(), *state]
            close = [one for one in names if name in one] or get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise WeightsError(f"--ignore {name}: the file has no such name{hint}")
    return {k: v for k, v in state.items() if not {k, layers[k]} & ignore}


def recognize(keys: Iterable[str]) -> str:
    """Return the format whose names these are.

    Raises:
        WeightsError: none, or more than one.
    """
    keys = list(keys)
    if is_own(keys):
        return DEEPLAB_LIT
    if is_caffe(keys):
        return CAFFE
    if is_kazuto1011(keys):
        return KAZUTO1011
    if "features.0.weight" in keys and has_branches(keys):
        raise WeightsError(
            "it is of AdaptSegNet's VGG-16, a network of its own (no pool4 and pool5, fc6 and fc7 "
            "with rate 4), which is not built here"
        )
    if is_torchvision(keys):
        return TORCHVISION
    if "features.0.weight" in keys:
        raise WeightsError(
            "its names are those of torchvision's VGG-16, but it has no classifier, and its values "
            "may be Caffe's (BGR, mean only). If they are torchvision's (mean and std): convert it "
            f"with python -m deeplab_lit.convert and --format {TORCHVISION}"
        )
    prefix = prefix_of(keys)
    if prefix is None:
        raise WeightsError(
            f"its names ({', '.join(map(repr, keys[:3]))}, …) are those of none of the formats "
            f"{', '.join(FORMATS)}. If it is one all the same, say which: --format of convert"
        )
    if prefix == "Scale.":
        return ISHT7
    if has_branches(keys):
        return ADAPTSEGNET
    raise WeightsError(
        f"its names are torchvision's, but it has no head, and its values may be Caffe's: convert "
        f"it with python -m deeplab_lit.convert and --format {TORCHVISION} (stride on the 3×3, "
        f"mean and std) or --format {ADAPTSEGNET} (stride on the 1×1, BGR, mean only)"
    )


def _state_dict(content: dict[str, Any]) -> StateDict:
    """Return the names and tensors of a file, wherever it keeps them."""
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError("it holds no state dict (names and tensors): take another file")
    return content
