"""What a dense CRF is told: its parameters, their names in the paper, and the released values."""

from dataclasses import dataclass
from math import isfinite

from deeplab_lit.errors import UserError

NORMALIZATIONS = ("symmetric", "after")
NUMBERS = ("bi_w", "bi_xy_std", "bi_rgb_std", "pos_w", "pos_xy_std")


def is_whole(value: object) -> bool:
    """Whether it is a whole number; True and False are none, restricted ints of a parser are."""
    return isinstance(value, int) and not isinstance(value, bool)


class CRFError(UserError, ValueError):
    """The CRF was given something that it cannot use: says what, what it expects and what to do."""


@dataclass(frozen=True)
class Parameters:
    """Pairwise terms and iterations of DeepLabv2's dense CRF (Sec. 3.3, Eq. 2–3).

    Two pixels with different labels cost
    w1·exp(−|p_i−p_j|²/2σα² − |I_i−I_j|²/2σβ²) + w2·exp(−|p_i−p_j|²/2σγ²),
    p in pixels, I the RGB values 0…255.

    `DenseCRF`, which adds how it is computed, says what each is.
    """

    bi_w: float = 4
    bi_xy_std: float = 67
    bi_rgb_std: float = 3
    pos_w: float = 3
    pos_xy_std: float = 1
    iterations: int = 10
    normalization: str = "symmetric"

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in NUMBERS and not isinstance(value, int | float):
                raise CRFError(f"{name} must be a number, got {value!r}")
        for name in ("bi_w", "pos_w"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise CRFError(f"{name} must be 0 or more, got {value}")
        for name in ("bi_xy_std", "bi_rgb_std", "pos_xy_std"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                weight = name[: name.index("_")] + "_w"
                raise CRFError(f"{name} must be above 0, got {value}; {weight}=0 drops the kernel")
        if not (is_whole(self.iterations) and self.iterations >= 0):
            raise CRFError(f"iterations must be a whole number from 0, got {self.iterations}")
        if self.normalization not in NORMALIZATIONS:
            raise CRFError(
                f"normalization must be one of {NORMALIZATIONS}, got {self.normalization!r}"
            )


# Released with the networks; none of them has the w2 = σγ = 3 of the paper's text but DeepLabv1's
PRESETS: dict[str, dict[str, float]] = {
    "resnet101": {"bi_w": 4, "bi_xy_std": 67, "bi_rgb_std": 3, "pos_w": 3, "pos_xy_std": 1},
    "vgg16": {"bi_w": 4, "bi_xy_std": 65, "bi_rgb_std": 3, "pos_w": 2, "pos_xy_std": 2},
    "deeplabv1": {"bi_w": 4, "bi_xy_std": 49, "bi_rgb_std": 5, "pos_w": 3, "pos_xy_std": 3},
}
