"""Heads, and branches of heads, that were never trained: they look as they were initialized.

The authors' prototxt and the ports alike draw the classifiers' weights from a normal distribution
of standard deviation 0.01; Caffe's biases begin at 0, torch's within ±1/√inputs.
"""

import math

from torch import Tensor

from deeplab_lit.network.weights.formats.source import Source, drop_head, leave_out
from deeplab_lit.network.weights.read import WeightsError

INITIALIZED = "as they were initialized (normal, standard deviation 0.01)"
UNTRAINED = f"a head whose weights are {INITIALIZED}, so it was never trained"


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
