"""The metrics that callbacks watch: does anything log them?"""

from collections.abc import Iterable

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from deeplab_lit.scoring.metric import SCALARS

COUNTERS = ("epoch", "step")  # which ModelCheckpoint knows too
LOSSES = ("train/loss", "val/loss")  # best when low
SCORES = ("val/miou", "val/iou/", "val_crf/")  # best when high


def logged_names(classes: Iterable[str], *, crf: bool) -> list[str]:
    """List the names of all that a run of ours logs in training and validation.

    Args:
        classes: names of the classes.
        crf: whether validations are scored after the CRF too.
    """
    scores = [*SCALARS, *(f"iou/{name}" for name in classes)]
    groups = ("backbone", "backbone.bias", "head.weight", "head.bias")  # training/optimizer.py
    names = ["train/loss", *(f"lr/{group}" for group in groups), "val/loss"]
    names += [f"{prefix}/{score}" for prefix in ("val", "val_crf")[: 1 + crf] for score in scores]
    return names


def all_known(callbacks: Iterable[Callback]) -> bool:
    """Tell whether no callback may log what `logged_names` does not know."""
    return all(
        isinstance(callback, EarlyStopping | ModelCheckpoint)
        or type(callback).__module__.startswith("deeplab_lit.")
        for callback in callbacks
    )


def check_monitors(callbacks: Iterable[Callback], names: Iterable[str]) -> None:
    """Refuse callbacks that watch what is not there, or want a loss high; warn of a low score.

    Args:
        callbacks: of a trainer; those that may do without their metric are passed over.
        names: of the metrics that are there.

    Raises:
        MisconfigurationException: says which metric, and those that there are; or which mode.
    """
    names = list(names)
    for callback in callbacks:
        if not isinstance(callback, ModelCheckpoint | EarlyStopping):
            continue
        needs = isinstance(callback, ModelCheckpoint) or callback.strict
        if needs and callback.monitor not in (None, *names, *COUNTERS):
            raise MisconfigurationException(
                f"{_option(callback)} watches {callback.monitor}, which is not logged; "
                f"there are: {', '.join(names)}"
            )
        worst = f"{_option(callback)} watches {callback.monitor} with mode {callback.mode}, which "
        worst += "takes its worst value for the best: set mode"
        if callback.monitor in LOSSES and callback.mode == "max":
            raise MisconfigurationException(f"{worst} min")
        if str(callback.monitor).startswith(SCORES) and callback.mode == "min":
            rank_zero_warn(f"{worst} max, unless this is meant")


def _option(callback: Callback) -> str:
    """Return the option by which a callback is known, or its name."""
    ours = type(callback).__module__.startswith("deeplab_lit.")
    return "--checkpoint.monitor" if ours else type(callback).__name__
