"""What every format is brought to: weights under our names, and the network they belong to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deeplab_lit.network.preprocess import STATISTICS
from deeplab_lit.network.weights.read import WeightsError
from deeplab_lit.types import Classes

StateDict = dict[str, Tensor]
COUNTER = "a counter that frozen normalization does not use"
CLASSIFIER = "the classifier of the pretraining"
# B,G,R that AdaptSegNet and others subtract; the authors' is in network/preprocess.py
OTHER_MEAN = (104.00698793, 116.66876762, 122.67891434)


@dataclass
class Source:
    """A weight file under our names.

    Attributes:
        format: of the file; "deeplab_lit" is our own.
        state: "preprocess.…", "backbone.…", "head.…" as in DeepLabV2. Without a head, or with a
            head of one branch without classifier (VGG-16's fc6 and fc7), it can start training
            only.
        network: arguments of DeepLabV2 that the format fixes.
        num_classes: C; null where the file has no classifier of a segmentation network.
        copied: their names that were used → our name of each.
        skipped: their name → why it was left out.
        classes: name → RGB color, from our own files; null elsewhere.
        provenance: from our own files; null elsewhere.
        label_values: class → its value in the label files of the training, from checkpoints of
            `fit`; None elsewhere.
    """

    format: str
    state: StateDict
    network: dict[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    copied: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    classes: Classes | None = None
    provenance: dict[str, Any] | None = None
    label_values: dict[str, int] | None = None


class Skip(str):
    """Instead of our name of a weight: why it is left out."""


def renamed(format: str, state: StateDict, rename: Callable[[str], str | Skip | None]) -> Source:
    """The source whose weights differ from ours in their names only.

    Args:
        format: of the file.
        state: what it holds.
        rename: their name → ours, or why it is skipped, or null for a name that is not known.

    Raises:
        WeightsError: names that are not known.
    """
    source = Source(format, {})
    unknown = []
    for key, value in state.items():
        name = rename(key)
        if name is None:
            unknown.append(key)
        elif isinstance(name, Skip):
            source.skipped[key] = str(name)
        else:
            source.state[name] = value
            source.copied[key] = name
    refuse_unknown(format, unknown)
    return source


def refuse_unknown(format: str, unknown: list[str]) -> None:
    """Raise a WeightsError that names the unknown weights, if there are any."""
    if unknown:
        more = f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""
        raise WeightsError(
            f"a file of format {format} has no {', '.join(unknown[:4])}{more}. If it can be left "
            "out: python -m deeplab_lit.convert with --ignore and the name; if the format is "
            "another: --format"
        )


def set_caffe_style(source: Source, mean_bgr: tuple[float, float, float] | None = None) -> None:
    """Let weights that were trained on B,G,R 0…255 minus a mean take our R,G,B.

    Args:
        source: changed in place.
        mean_bgr: null: the authors'.
    """
    first = "backbone.conv1.weight"
    first = first if first in source.state else "backbone.features.0.weight"
    if first in source.state:
        source.state[first] = source.state[first].flip(1)
    mean, std = STATISTICS["caffe"]
    mean = mean if mean_bgr is None else mean_bgr[::-1]
    source.state["preprocess.mean"] = torch.tensor(mean).view(1, 3, 1, 1)
    source.state["preprocess.std"] = torch.tensor(std).view(1, 3, 1, 1)
    source.network |= {"style": "caffe", "norm": "frozen", "output_stride": 8}


def set_head(source: Source, head: str, atrous_rates: tuple[int, ...], bias: str) -> None:
    """Say which head the file has.

    Args:
        source: changed in place.
        head: of DeepLabV2.
        atrous_rates: a rate a branch.
        bias: our name of a classifier's bias, whose length is C.
    """
    if bias in source.state:
        source.num_classes = len(source.state[bias])
        source.network |= {"head": head, "atrous_rates": atrous_rates}


def leave_out(source: Source, ours: Iterable[str], reason: str) -> None:
    """Take weights out of a source again.

    Args:
        source: changed in place.
        ours: their names among ours.
        reason: why, for the report.
    """
    ours = set(ours)
    for theirs, name in list(source.copied.items()):
        if name in ours:
            del source.state[name], source.copied[theirs]
            source.skipped[theirs] = reason


def drop_head(source: Source, reason: str) -> None:
    """Make a file one to train from: without classifiers, and without what they say.

    Args:
        source: changed in place; VGG-16's fc6 and fc7 stay.
        reason: why, for the report.
    """
    head = [key for key in source.state if key.startswith("head.")]
    leave_out(source, [k for k in head if ".fc6." not in k and ".fc7." not in k], reason)
    source.num_classes = source.classes = None
    for name in ("head", "atrous_rates"):
        source.network.pop(name, None)
