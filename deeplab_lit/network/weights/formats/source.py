"""Source: weights under our names and their network, which every format is converted to.

Heads, and branches of heads, that were never trained are left out or refused: they look as they
were initialized. The authors' prototxt and the ports alike draw the classifiers' weights from a
normal distribution of standard deviation 0.01; Caffe's biases begin at 0, torch's within
±1/√inputs.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deeplab_lit.network.deeplab import STATISTICS
from deeplab_lit.network.weights.read import WeightsError
from deeplab_lit.types import Classes

StateDict = dict[str, Tensor]
COUNTER = "a counter that frozen normalization does not use"
CLASSIFIER = "the classifier of the pretraining"
CLASSIFIER_OF_IMAGENET = "the classifier of ImageNet's classes"
# B,G,R that AdaptSegNet and others subtract; the authors' is in network/deeplab.py
OTHER_MEAN = (104.00698793, 116.66876762, 122.67891434)
INITIALIZED = "as they were initialized (normal, standard deviation 0.01)"
UNTRAINED = f"a head whose weights are {INITIALIZED}, so it was never trained"


@dataclass
class Source:
    """A weight file under our names.

    Attributes:
        format: of the file; "deeplab_lit" is our own.
        state: "preprocess.…", "backbone.…", "head.…", "aux_head.…" as in DeepLabV2. Without a
            head, or with a head of one branch without classifier (VGG-16's fc6 and fc7), it can
            start training only.
        network: arguments of DeepLabV2 that the format fixes.
        num_classes: C; None where the file has no classifier of a segmentation network.
        copied: name in the file → our name, of the weights that are used.
        skipped: name in the file → why it is left out.
        classes: name → RGB color, from our own files; None elsewhere.
        provenance: from our own files; None elsewhere.
        label_values: class → its value in the label files of the training, from checkpoints of
            `fit`; None elsewhere.
        pretraining_classes: outputs of the classifier of the pretraining, 1000 of ImageNet's, 91 of
            MS-COCO's; None where the file holds none.
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
    pretraining_classes: int | None = None


class Skip(str):
    """Instead of our name of a weight: why it is left out."""


def renamed(format: str, state: StateDict, rename: Callable[[str], str | Skip | None]) -> Source:
    """Convert weights that differ from ours in their names only.

    Args:
        format: of the file.
        state: what it holds.
        rename: name in the file → ours, or why it is skipped, or None for an unknown name.

    Raises:
        WeightsError: there are unknown names.
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


def count_pretraining_classes(source: Source, state: StateDict) -> int | None:
    """Return the outputs of the classifier of the pretraining; None where there is none.

    Args:
        source: converted; what it skipped counts.
        state: as the file has it.
    """
    classifiers = (CLASSIFIER, CLASSIFIER_OF_IMAGENET)
    skipped = [state[key] for key, why in source.skipped.items() if why in classifiers]
    # not the biases; Caffe's are (1,1,1,C)
    weights = [value for value in skipped if value.ndim > 1 and value.shape[2:].numel() == 1]
    return len(weights[-1]) if weights else None  # VGG-16's last layer follows fc6 and fc7


def set_caffe_style(source: Source, mean_bgr: tuple[float, float, float] | None = None) -> None:
    """Make weights that were trained on B,G,R 0…255 minus a mean take our R,G,B.

    Args:
        source: changed in place.
        mean_bgr: B,G,R in 0…255; None: the authors'.
    """
    first = "backbone.conv1.weight"
    first = first if first in source.state else "backbone.features.0.weight"
    if first in source.state:
        source.state[first] = source.state[first].flip(1)
    mean, std = STATISTICS["caffe"]
    if mean_bgr is not None:
        mean = mean_bgr[::-1]
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


def leave_out(source: Source, names: Iterable[str], reason: str) -> None:
    """Take weights out of a source again.

    Args:
        source: changed in place.
        names: of the weights, among ours.
        reason: why, for the report.
    """
    names = set(names)
    for name_in_file, name in list(source.copied.items()):
        if name in names:
            del source.state[name], source.copied[name_in_file]
            source.skipped[name_in_file] = reason


def drop_head(source: Source, reason: str) -> None:
    """Reduce a file to one that training can start from: no classifiers, no classes.

    Args:
        source: changed in place; VGG-16's fc6 and fc7 stay.
        reason: why, for the report.
    """
    head = below("head.", source.state)
    inner = fc6_and_fc7(head)
    names = [n for n in source.state if n.startswith(("head.", "aux_head.")) and n not in inner]
    leave_out(source, names, reason)
    source.num_classes = source.classes = None
    for name in ("head", "atrous_rates", "aux_head"):
        source.network.pop(name, None)


def below(prefix: str, state: StateDict) -> StateDict:
    """Return the entries whose names begin with `prefix`, under these names."""
    return {key: value for key, value in state.items() if key.startswith(prefix)}


def strip(state: StateDict, prefix: str) -> StateDict:
    """Return the entries below `prefix`, without it; all entries where none has it."""
    entries = {key.removeprefix(prefix): value for key, value in below(prefix, state).items()}
    return entries or state


def fc6_and_fc7(state: StateDict) -> StateDict:
    """Return the weights of VGG-16's two layers before the classifier."""
    return {key: value for key, value in state.items() if ".fc6." in key or ".fc7." in key}


def drop_untrained_head(source: Source) -> None:
    """Leave out a head that was never trained: nothing can be scored with it.

    Weights alone could look so by chance; but the first steps of a training take some bias further
    from 0 than any initialization does, at the authors' learning rates.

    Args:
        source: changed in place.
    """
    weights = _classifiers(source, "weight")
    biases = _classifiers(source, "bias")
    if not weights or len(weights) != len(biases):
        return
    if all(map(_looks_initialized, weights)) and all(map(_near_zero, biases, weights)):
        drop_head(source, UNTRAINED)


def keep_branches(source: Source, branches: int | None) -> None:
    """Drop all but the first `branches` of the head, for networks that were trained with those.

    Args:
        source: changed in place.
        branches: None: keep all, unless that would be wrong.

    Raises:
        WeightsError: there are not so many; or the last ones, but not the first, look as they were
            initialized, and nobody has said what to do with them.
    """
    rates = source.network.get("atrous_rates", ())
    if branches is None:
        _refuse_untrained(source, len(rates))
        return
    if not 1 <= branches <= len(rates):
        number = f"{len(rates) or 'no'} branch{'es' * (len(rates) != 1)}"
        raise WeightsError(f"--branches {branches}: the file has {number}")
    dropped = [
        key
        for key in source.state
        if key.startswith("head.branches.") and int(key.split(".")[2]) >= branches
    ]
    kept = f"branch{'es' * (branches > 1)}"
    leave_out(source, dropped, f"not of the first {branches} {kept}, as asked")
    source.network["atrous_rates"] = rates[:branches]


def _refuse_untrained(source: Source, branches: int) -> None:
    """Refuse a head whose last branches, but not the first, look as they were initialized."""
    weights = _classifiers(source, "weight")
    if not weights or len(weights) < branches:
        return
    untrained = [_looks_initialized(weight) for weight in weights]
    if untrained[-1] and not untrained[0]:
        used = untrained.index(True)
        raise WeightsError(
            f"branches {', '.join(str(i + 1) for i, u in enumerate(untrained) if u)} of the head "
            f"look {INITIALIZED}: AdaptSegNet's code trains the first two only. Evaluate it as it "
            f"was trained with --branches {used} (python -m deeplab_lit.convert), or with "
            f"--branches {len(weights)} if all are meant"
        )


def _classifiers(source: Source, kind: str) -> list[Tensor]:
    """Return the "weight" or "bias" of each branch's last layer."""
    names = (f"head.branches.{i}.{layer}{kind}" for i in range(4) for layer in ("", "fc8."))
    return [source.state[name] for name in names if name in source.state]


def _looks_initialized(weight: Tensor) -> bool:
    # of n such numbers the standard deviation is within 4/√(2n) of 0.01, but for one in 16,000
    tolerance = max(0.005, 4 / math.sqrt(2 * weight.numel()))
    return abs(float(weight.float().std()) / 0.01 - 1) < tolerance


def _near_zero(bias: Tensor, weight: Tensor) -> bool:
    return float(bias.float().abs().max()) <= 1.001 / math.sqrt(weight[0].numel())
