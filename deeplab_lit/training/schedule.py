"""When what changes: learning rate policies (DeepLabv2, Sec. 4.1.2; Table 2), and validations.

All groups keep their own rate, times the policy's factor. torch's PolynomialLR keeps its length in
the checkpoint and trains at 0 when a run is resumed for longer; these follow what they are given.
"""

import sys
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Policy = Literal["poly", "step"]
DEFAULTS = {  # the paper's
    "poly": {"poly_power": 0.9},
    "step": {"step_size": None, "step_factor": 0.1},
}
ONCE = {"step_size": 2000}  # a default of before, which older checkpoints hold with poly too


def poly(step: int, total_steps: int, power: float) -> float:
    """(1 − step/total)^power, the factor at an optimizer step counted from 0; 0 from the end on."""
    return max(1 - step / total_steps, 0.0) ** power


def stairs(step: int, size: int, factor: float) -> float:
    """factor^⌊step/size⌋, the factor at an optimizer step counted from 0; Caffe's "step"."""
    return factor ** (step // size)


def poly_schedule(optimizer: Optimizer, total_steps: int, power: float) -> LambdaLR:
    """The "poly" policy, to be stepped after each optimizer step."""
    return LambdaLR(optimizer, lambda step: poly(step, total_steps, power))


def step_schedule(optimizer: Optimizer, size: int, factor: float) -> LambdaLR:
    """The "step" policy, to be stepped after each optimizer step."""
    return LambdaLR(optimizer, lambda step: stairs(step, size, factor))


def validation_interval(batches: int) -> int:
    """Choose how many batches validations are apart where nothing is said: ten in a training.

    Epochs are no measure: one of twenty images is two steps, one of COCO's twelve thousand.

    Args:
        batches: of the whole training, from 1 up.

    Returns:
        The interval whose number is nearest to ten, from 5 to 20, and whose last validation is at
        the training's end; else a tenth, rounded down, of at least one batch.
    """
    parts = sorted(range(5, 21), key=lambda n: abs(n - 10))
    even = (batches // n for n in parts if batches % n == 0)
    return next(even, max(batches // 10, 1))


def check_policy(policy: Policy, options: dict[str, float | None]) -> None:
    """Refuse options out of range, and those that the policy does not read: set in vain.

    Args:
        policy: which one.
        options: of all policies, by name; null: what follows from the training's length.

    Raises:
        ValueError: an unknown policy; an option that is not positive; an option of another policy
            that is not at its default.
    """
    if policy not in DEFAULTS:
        raise ValueError(f"lr_policy must be one of {', '.join(DEFAULTS)}, got {policy!r}")
    for owner, defaults in DEFAULTS.items():
        for name, default in defaults.items():
            value = options[name]
            most = 1 if name == "step_factor" else sys.maxsize  # a learning rate falls
            if value is not None and not 0 < value <= most:
                raise ValueError(
                    f"{name} is out of range: {value}, expected more than 0"
                    + (", at most 1" if most == 1 else "")
                )
            if owner != policy and options[name] not in (default, ONCE.get(name, default)):
                raise ValueError(
                    f"{name} is {options[name]}, but lr_policy {policy} does not use it: leave it "
                    f"out, or set --model.lr_policy {owner}"
                )
