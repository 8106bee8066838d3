"""The CRF on a command line: a preset, and what is said beside it."""

from dataclasses import dataclass
from typing import Literal

from deeplab_lit.crf.dense_crf import DenseCRF
from deeplab_lit.crf.parameters import NAMES, PRESETS


@dataclass
class CRFOptions:
    """The dense CRF after the network; a parameter that is given wins over the preset's.

    Args:
        enabled: refine and score; `--crf` alone, or any other `--crf.…`, sets it.
        preset: released parameters, of the network in question.
        bi_w: w1 of the paper's Eq. 3, weight of the appearance kernel.
        bi_xy_std: σα, its reach in pixels.
        bi_rgb_std: σβ, its reach in color.
        pos_w: w2, weight of the smoothness kernel.
        pos_xy_std: σγ, its reach in pixels.
        iterations: mean-field steps.
        normalization: "symmetric", or "after" as in the authors' C++ release.
        backend: "auto", "native", "torch" or "pydensecrf"; see DenseCRF.
    """

    enabled: bool = False
    preset: Literal["resnet101", "vgg16", "deeplabv1"] = "resnet101"
    bi_w: float | None = None
    bi_xy_std: float | None = None
    bi_rgb_std: float | None = None
    pos_w: float | None = None
    pos_xy_std: float | None = None
    iterations: int | None = None
    normalization: Literal["symmetric", "after"] | None = None
    backend: Literal["auto", "native", "torch", "pydensecrf"] = "auto"

    def build(self, threads: int | None = None) -> DenseCRF:
        """The CRF.

        Raises:
            CRFError: a parameter out of range; the backend is not installed.
        """
        given = {name: getattr(self, name) for name in NAMES if getattr(self, name) is not None}
        return DenseCRF(**PRESETS[self.preset] | given, backend=self.backend, threads=threads)


def with_crf_enabled(argv: list[str]) -> list[str]:
    """A command line in which `--crf`, or any `--crf.…`, says that the CRF is wanted.

    A preset on it wins over parameters in configurations, too.
    """
    alone = {i for i, arg in enumerate(argv) if arg == "--crf" and _no_value(argv[i + 1 :])}
    wanted = bool(alone) or any(arg.startswith("--crf.") for arg in argv)
    typed = {arg.partition("=")[0] for arg in argv}
    if "--crf.preset" in typed:
        argv = [*argv, *(f"--crf.{x}=null" for x in NAMES if f"--crf.{x}" not in typed)]
    said = any(arg.startswith("--crf.enabled") for arg in argv)
    kept = [arg for i, arg in enumerate(argv) if i not in alone]
    return [*kept, "--crf.enabled=true"] if wanted and not said else kept


def _no_value(following: list[str]) -> bool:
    return not following or following[0].startswith("-")
