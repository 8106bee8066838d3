"""kazuto1011/deeplab-pytorch: files in its own names, from its training and its Caffe converter.

Its network is the authors' but for the resizing: bilinear without aligned corners, and scaled
images of ⌊0.75·size⌋ and ⌊0.5·size⌋ pixels.
"""

import re
from collections.abc import Iterable

from deeplab_lit.network.weights import KAZUTO1011
from deeplab_lit.network.weights.formats.source import (
    CLASSIFIER,
    COUNTER,
    Skip,
    Source,
    StateDict,
    renamed,
    set_caffe_style,
    set_head,
)

LAYERS = {"reduce": 1, "conv3x3": 2, "increase": 3}
STEM = re.compile(r"layer1\.conv1\.(conv|bn)\.(\w+)")
BLOCK = re.compile(
    r"layer([2-5])\.block(\d+)\.(reduce|conv3x3|increase|shortcut)\.(conv|bn)\.(\w+)"
)
BRANCH = re.compile(r"aspp\.c([0-3])\.(weight|bias)")


def is_kazuto1011(keys: Iterable[str]) -> bool:
    """Tell whether these are its names."""
    return any(key.removeprefix("base.") == "layer1.conv1.conv.weight" for key in keys)


def from_kazuto1011(state: StateDict) -> Source:
    """Convert its names. With "base." in front of them the file is of a multi-scale network.

    Raises:
        WeightsError: there are unknown names.
    """
    source = renamed(KAZUTO1011, state, _rename)
    set_caffe_style(source)
    multi_scale = any(key.startswith("base.") for key in state)
    scales = (1.0, 0.75, 0.5) if multi_scale else (1.0,)
    source.network |= {"backbone": "resnet101", "align_corners": False, "scales": scales}
    set_head(source, "aspp", (6, 12, 18, 24), "head.branches.0.bias")
    return source


def _rename(key: str) -> str | Skip | None:
    if key.endswith(".num_batches_tracked"):
        return Skip(COUNTER)
    key = key.removeprefix("base.")
    if key in ("fc.weight", "fc.bias"):
        return Skip(CLASSIFIER)
    if match := BRANCH.fullmatch(key):
        return f"head.branches.{match[1]}.{match[2]}"
    if match := STEM.fullmatch(key):
        return f"backbone.{match[1]}1.{match[2]}"
    if match := BLOCK.fullmatch(key):
        stage, block, layer, kind, what = match.groups()
        if layer == "shortcut":
            name = f"downsample.{0 if kind == 'conv' else 1}"
        else:
            name = f"{kind}{LAYERS[layer]}"
        return f"backbone.layer{int(stage) - 1}.{int(block) - 1}.{name}.{what}"
    return None
