"""Loading weights strictly: every one is there, has its shape and is finite."""

from pathlib import Path

from torch import Tensor, nn

from deeplab_lit.network.weights.read import WeightsError


def load_strictly(module: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Load all weights of a module, or none.

    Args:
        module: changed in place.
        state: names as in the module's own state dict; counters of batches may be missing.
        source: named in errors.

    Raises:
        WeightsError: names or shapes are others, or there are values that are not finite.
    """
    check_fit(module, state, source)
    module.load_state_dict(_without_counters(state), strict=False)


def check_fit(module: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """As `load_strictly`, but nothing is loaded."""
    own, state = _without_counters(module.state_dict()), _without_counters(state)
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    unequal = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if own[key].shape != state[key].shape
    ]
    problems = [f"missing {key}" for key in missing] + [f"unknown {key}" for key in extra] + unequal
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise WeightsError(
            f"{source} does not fit the network: {'; '.join(problems[:4])}{more}. It is of another "
            "network, or damaged"
        )
    refuse_non_finite(state, source)


def _without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Counters of batches: a frozen norm has none, and none is needed."""
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def refuse_non_finite(state: dict[str, Tensor], source: str | Path) -> None:
    """Raise a WeightsError that names the weights that hold NaN or infinity, if there are any."""
    bad = [key for key, value in state.items() if not value.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        raise WeightsError(
            f"{source} holds values that are not finite (NaN or infinity) in {', '.join(bad[:4])}"
            f"{more}: the training that wrote it diverged, or the file is damaged. Take another one"
        )
