"""Record the classes that train in a checkpoint, and check whether a run may go on with it.

Objects (a loss, an optimizer, a policy) are not written into checkpoints, which are read as plain
data; their class paths and plain options are, under "trained_with".
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_lit.errors import UserError
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.training.optimizer import OptimizerFactory, check_optimizer, is_plain

DEFAULTS = {  # of checkpoints that do not say it
    "model": "deeplab_lit.training.module.DeepLabModule",
    "model.loss": None,
    "model.optimizer": None,
    "model.lr_policy": None,
}


def trained_with(
    module: object,
    loss: object | None,
    optimizer: OptimizerFactory | None,
    momentum: float,
    policy: object,
) -> dict[str, Any]:
    """Describe the classes that train, by the options that name them.

    Args:
        module: the LightningModule.
        loss: None: the authors'.
        optimizer: None: the authors'.
        momentum: of the authors' optimizer.
        policy: a name, or an object.

    Returns:
        Option → class path; of an optimizer also its options; None for a default. Of a loss and a
        policy, their plain arguments follow under names like "model.loss.gamma".

    Raises:
        ValueError: an optimizer's options are out of range or set in vain.
    """
    classes = {
        "model": _class_path(module),
        "model.loss": None if loss is None else _class_path(loss),
        "model.optimizer": optimizer and check_optimizer(optimizer, momentum),
        "model.lr_policy": None if isinstance(policy, str) else _class_path(policy),
    }
    parts = {"model.loss": loss, "model.lr_policy": policy}
    return classes | {
        f"{option}.{name}": value
        for option, part in parts.items()
        if classes[option] is not None
        for name, value in _plain_arguments(part).items()
    }


def _plain_arguments(thing: object) -> dict[str, Any]:
    """Return the plain arguments of an object that it keeps as attributes of the same names."""
    names = inspect.signature(type(thing)).parameters
    values = {name: _without_numpy(getattr(thing, name, None)) for name in names}
    return {name: v for name, v in values.items() if v is not None and is_plain(v)}


def check_same_module(checkpoint: Mapping[str, Any], module: type, path: str | None) -> None:
    """Refuse to go on with a training of another class, whose options and parts are others.

    Args:
        checkpoint: its content.
        module: class of the LightningModule.
        path: of the checkpoint, for the message.

    Raises:
        UserError: says which class, and what to do.
    """
    now = {"model": f"{module.__module__}.{module.__qualname__}"}
    check_same_training(checkpoint, now, path)


def check_same_training(
    checkpoint: Mapping[str, Any], now: Mapping[str, Any], path: str | None
) -> None:
    """Refuse to go on with a training by other classes, which would be taken over in silence.

    Options count that both sides have: another version of a class may have more of them.

    Args:
        checkpoint: its content.
        now: what the run trains with, as `trained_with` returns it.
        path: of the checkpoint, for the message.

    Raises:
        UserError: says which option differs, and what to do.
    """
    before = DEFAULTS | checkpoint.get("trained_with", {})
    for option, value in now.items():
        if option in before and _differ(before[option], value):
            was = _in_words(option, before[option], value)
            is_now = _in_words(option, value, before[option])
            raise UserError(
                f"{path} was trained with {was}, but this run has {is_now}: go on with what it was "
                f"trained with; or start a new training from its weights with --model.weights "
                f"{path} instead of --ckpt_path"
            )


def _differ(before: Any, value: Any) -> bool:
    if not (isinstance(before, dict) and isinstance(value, dict)):
        return before != value
    return any(before[name] != value[name] for name in before.keys() & value.keys())


def plain_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are numbers, text, and lists and dictionaries of them.

    Args:
        settings: hyper-parameters. NumPy's numbers among them become Python's.

    Raises:
        UserError: the classes, or an argument of the network, is something else: without it no
            file could be read.
    """
    values = {name: _without_numpy(value) for name, value in settings.items()}
    for name in values.keys() & {"classes", *inspect.signature(DeepLabV2).parameters}:
        if not is_plain(values[name]):
            raise UserError(
                f"{name} is {values[name]!r:.80}, which a checkpoint cannot hold: give numbers, "
                "text, or lists and dictionaries of them"
            )
    return {name: value for name, value in values.items() if is_plain(value)}


def _without_numpy(value: Any) -> Any:
    """Return a value with Python's numbers for NumPy's."""
    if isinstance(value, dict):
        return {_without_numpy(key): _without_numpy(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_without_numpy, value))
    return value.item() if isinstance(value, np.generic) else value


def _class_path(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _in_words(option: str, value: Any, other: Any) -> str:
    """Return an option and what differs of its value from another one, like "--model.loss my.Loss".

    Of two optimizers of one class their options differ: "--model.optimizer …AdamW (eps 1e-08)".
    """
    if not isinstance(value, dict):
        return f"no --{option}" if value is None else f"--{option} {value}"
    text = f"--{option} {value['class']}"
    if not isinstance(other, dict) or other["class"] != value["class"]:
        return text
    options = [f"{k} {v}" for k, v in value.items() if k in other and other[k] != v]
    return f"{text} ({', '.join(options)})"
