"""isht7/pytorch-deeplab-resnet and wasidennis/AdaptSegNet: torchvision's names, Caffe's values.

isht7's files have "Scale." in front and are of a multi-scale network, which exists for squares of
4k + 1 pixels (elsewhere its scaled images are a pixel larger than the authors'). AdaptSegNet's, and
those of the many papers built on it, have another prefix or none, and one scale. Their multi-level
networks have an auxiliary head on layer3, called layer5, and the real one is layer6. Both resize
with aligned corners.
"""

import re
from collections.abc import Iterable

from deeplab_lit.network.weights import ADAPTSEGNET, ISHT7
from deeplab_lit.network.weights.formats.source import (
    CLASSIFIER,
    COUNTER,
    OTHER_MEAN,
    Skip,
    Source,
    StateDict,
    keep_branches,
    renamed,
    set_caffe_style,
    set_head,
)

ADVSEMISEG = "resnet101COCO-41f33a49"  # Caffe's values in torchvision's bare names, without head
FIRST = "layer1.0.conv1.weight"
HEAD = re.compile(r"(layer[56])\.conv2d_list\.([0-3])\.(weight|bias)")
BACKBONE = re.compile(r"(conv1|bn1|layer[1-4]\.\d+\.(conv\d|bn\d|downsample\.[01]))\.\w+")


def prefix_of(keys: Iterable[str]) -> str | None:
    """Return what stands in front of torchvision's names of a ResNet; None: no such names."""
    return next((key.removesuffix(FIRST) for key in keys if key.endswith(FIRST)), None)


def has_branches(keys: Iterable[str]) -> bool:
    """Tell whether there is a head in these formats' names."""
    return any(".conv2d_list." in key for key in keys)


def from_isht7(state: StateDict, branches: int | None = None) -> Source:
    """Convert isht7's names, of a multi-scale network with the authors' mean.

    Arguments and errors are those of `from_adaptsegnet`.
    """
    source = _from(ISHT7, state)
    set_caffe_style(source)
    source.network["scales"] = (1.0, 0.75, 0.5)
    keep_branches(source, branches)
    return source


def from_adaptsegnet(state: StateDict, branches: int | None = None) -> Source:
    """Convert AdaptSegNet's names.

    Args:
        state: what the file holds.
        branches: how many of the head's branches to keep: AdaptSegNet's own code returns from
            inside the loop over them, so it trains and evaluates 2 of 4.

    Raises:
        WeightsError: there are unknown names, or branches that look untrained.
    """
    source = _from(ADAPTSEGNET, state)
    set_caffe_style(source, OTHER_MEAN)
    source.network["scales"] = (1.0,)
    keep_branches(source, branches)
    return source


def _from(format: str, state: StateDict) -> Source:
    """Convert the names that both formats share."""
    prefix = prefix_of(state) or ""
    multi_level = any(key.startswith(f"{prefix}layer6.") for key in state)
    head = "layer6" if multi_level else "layer5"

    def rename(key: str) -> str | Skip | None:
        if not key.startswith(prefix):
            return None
        key = key.removeprefix(prefix)
        if key.endswith(".num_batches_tracked"):
            return Skip(COUNTER)
        if key in ("fc.weight", "fc.bias"):
            return Skip(CLASSIFIER)
        if match := HEAD.fullmatch(key):
            if match[1] != head:
                return Skip("the auxiliary head on layer3, for training only")
            return f"head.branches.{match[2]}.{match[3]}"
        return f"backbone.{key}" if BACKBONE.fullmatch(key) else None

    source = renamed(format, state, rename)
    source.network |= {"backbone": "resnet101", "align_corners": True}
    set_head(source, "aspp", (6, 12, 18, 24), "head.branches.0.bias")
    return source
