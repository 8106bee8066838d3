"""What every format is brought to: weights under our names, and the network they belong to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deeplab_lit.network.files import WeightsError
from deeplab_lit.network.preprocess import STATISTICS

StateDict = dict[str, Tensor]
COUNTER = "a counter that frozen normalisation does not use"
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
        copied: their names that were used.
        skipped: their name → why it was left out.
        classes: name → RGB colour, from our own files; null elsewhere.
        provenance: from our own files; null elsewhere.
    """

    format: str
    state: StateDict
    network: dict[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    copied: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    classes: dict[str, tuple[int, int, int]] | None = None
    provenance: dict[str, Any] | None = None


class Skip(str):
    """Instead of our name of a weight: why it is left out."""


def renamed(
    format: str, state: StateDict, rename: Callable[[str], str | Skip | None], ignore: Iterable[str]
) -> Source:
    """The source whose weights differ from ours in their names only.

    Args:
        format: of the file.
        state: what it holds.
        rename: their name → ours, or why it is skipped, or null for a name that is not known.
        ignore: names that may be unknown.

    Raises:
        WeightsError: names that are not known.
    """
    source = Source(format, {})
    unknown = []
    for key, value in state.items():
        name = rename(key)
        if key in ignore:
            source.skipped[key] = "ignored, as asked"
        elif name is None:
            unknown.append(key)
        elif isinstance(name, Skip):
            source.skipped[key] = str(name)
        else:
            source.state[name] = value
            source.copied.append(key)
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


def keep_branches(source: Source, branches: int | None) -> None:
    """Drop all but the first `branches` of the head, for networks that were trained with those.

    Raises:
        WeightsError: there are not so many; or the last ones, but not the first, look as they were
            initialised, and nobody has said what to do with them.
    """
    rates = source.network.get("atrous_rates", ())
    if branches is None:
        _refuse_untrained(source, rates)
        return
    if not 1 <= branches <= len(rates):
        raise WeightsError(f"--branches {branches}: the file has {len(rates) or 'no'} branches")
    for key in [k for k in source.state if k.startswith("head.branches.")]:
        if int(key.split(".")[2]) >= branches:
            del source.state[key]
    source.network["atrous_rates"] = rates[:branches]


def _refuse_untrained(source: Source, rates: tuple[int, ...]) -> None:
    weights = [source.state.get(f"head.branches.{i}.weight") for i in range(len(rates))]
    if not rates or any(weight is None or weight.numel() < 100_000 for weight in weights):
        return
    # at 19 classes the standard deviation of N(0, 0.01) is 0.01 within 0.12 %
    untrained = [abs(float(weight.float().std()) / 0.01 - 1) < 0.005 for weight in weights]
    if untrained[-1] and not untrained[0]:
        used = untrained.index(True)
        raise WeightsError(
            f"branches {', '.join(str(i + 1) for i, u in enumerate(untrained) if u)} of the head "
            "look as they were initialised (normal, standard deviation 0.01): AdaptSegNet's code "
            f"trains the first two only. Evaluate it as it was trained with --branches {used} "
            f"(python -m deeplab_lit.convert), or with --branches {len(rates)} if all are meant"
        )
