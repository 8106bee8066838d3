"""The "poly" learning rate policy (DeepLabv2, Sec. 4.1.2, Eq. in the text; Table 2)."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def poly(step: int, total_steps: int, power: float) -> float:
    """(1 − step/total)^power, the factor at an optimizer step counted from 0; 0 from the end on."""
    return max(1 - step / total_steps, 0.0) ** power


def poly_schedule(optimizer: Optimizer, total_steps: int, power: float) -> LambdaLR:
    """All groups at their own rate times the poly factor, to be stepped after each optimizer step.

    torch's PolynomialLR keeps its length in the checkpoint and trains at 0 when a run is resumed
    for longer; this one follows the length that it is given.
    """
    return LambdaLR(optimizer, lambda step: poly(step, total_steps, power))
