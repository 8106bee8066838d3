"""The dense CRF's parameters: names, ranges, released values, and how they are put into words."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Literal

from deeplab_lit.errors import UserError

NORMALIZATIONS = ("symmetric", "after")
NUMBERS = ("bi_w", "bi_xy_std", "bi_rgb_std", "pos_w", "pos_xy_std")


class CRFError(UserError, ValueError):
    """The CRF cannot use its input: says what it is, what is expected and what to do."""


@dataclass(frozen=True)
class Parameters:
    """Pairwise terms and iterations of DeepLabv2's dense CRF (Sec. 3.3, Eq. 2–3).

    Two pixels with different labels cost
    w1·exp(−|p_i−p_j|²/2σα² − |I_i−I_j|²/2σβ²) + w2·exp(−|p_i−p_j|²/2σγ²),
    p in pixels, I the RGB values 0…255.

    `DenseCRF`, which adds how it is computed, describes each.

    Raises:
        CRFError: a value out of its range.
    """

    bi_w: float = 4
    bi_xy_std: float = 67
    bi_rgb_std: float = 3
    pos_w: float = 3
    pos_xy_std: float = 1
    iterations: int = 10
    normalization: Literal["symmetric", "after"] = "symmetric"

    def __post_init__(self) -> None:
        for name in NUMBERS:
            value = getattr(self, name)
            if not isinstance(value, int | float):
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


NAMES = tuple(field.name for field in fields(Parameters))

# Released with the networks, also as files in configs/crf/, which name the sources; none of them
# has the w2 = σγ = 3 of the paper's text but DeepLabv1's
PRESETS: dict[str, dict[str, Any]] = {
    "resnet101": {"bi_w": 4, "bi_xy_std": 67, "bi_rgb_std": 3, "pos_w": 3, "pos_xy_std": 1},
    "vgg16": {"bi_w": 4, "bi_xy_std": 65, "bi_rgb_std": 3, "pos_w": 2, "pos_xy_std": 2},
    "deeplabv1": {"bi_w": 4, "bi_xy_std": 49, "bi_rgb_std": 5, "pos_w": 3, "pos_xy_std": 3},
}


def is_whole(value: object) -> bool:
    """Return whether a value is an integer; True and False are not, a parser's subclasses are."""
    return isinstance(value, int) and not isinstance(value, bool)


def in_words(settings: Mapping[str, Any]) -> str:
    """Return the settings of a `DenseCRF` as one line for the screen; other keys are left out.

    Args:
        settings: as `DenseCRF.settings` returns them. Of another refiner: gives an empty text.
    """
    if not {"backend", *NAMES} <= settings.keys():
        return ""
    values = ", ".join(f"{name} {settings[name]:g}" for name in NAMES[:-1])
    return f"{settings['backend']} backend, {values}, {settings['normalization']}"
