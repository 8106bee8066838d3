"""What a file of ours says of itself: read from a file, it may be anything, so it is checked."""

import inspect
import json
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.read import WeightsError
from deeplab_lit.types import Classes

DAMAGED = "The file is damaged, or not of this program: take another copy of it"
MOST_CLASSES = 10_000
LARGEST_SCALE = 100.0
LARGEST = 2**31  # what torch takes for a rate or a stride
WORDS = {int: "a whole number", bool: "true or false", float: "a number"}


def checked_network(settings: Any) -> dict[str, Any]:
    """Those of a checkpoint's hyper_parameters that are arguments of DeepLabV2.

    Ranges are left to DeepLabV2.

    Raises:
        WeightsError: they are no names and values, or one is of another type.
    """
    if not isinstance(settings, dict):
        raise _refused("hyper_parameters", settings, "names and values")
    network = {}
    for name, parameter in inspect.signature(DeepLabV2).parameters.items():
        if name in settings and name != "num_classes":
            if not _fits(settings[name], parameter.annotation):
                expected = _in_words(parameter.annotation)
                raise _refused(f"hyper_parameters.{name}", settings[name], expected)
            network[name] = settings[name]
    if any(scale > LARGEST_SCALE for scale in network.get("scales", ())):
        expected = f"numbers up to {LARGEST_SCALE:g}"
        raise _refused("hyper_parameters.scales", network["scales"], expected)
    return network


def checked_classes(classes: Any) -> Classes:
    """Name → RGB color, from a checkpoint's hyper_parameters.

    Raises:
        WeightsError: they are something else.
    """
    expected = "the classes' names, each with its color (three whole numbers in 0…255)"
    if not isinstance(classes, dict) or not classes:
        raise _refused("hyper_parameters.classes", classes, expected)
    if len(classes) > MOST_CLASSES:
        raise _refused("hyper_parameters.classes", classes, f"at most {MOST_CLASSES:,} classes")
    for name, color in classes.items():
        if not isinstance(name, str) or not _is_color(color):
            raise _refused("hyper_parameters.classes", {name: color}, expected)
    return {name: tuple(color) for name, color in classes.items()}


def checked_label_values(values: Any, classes: Iterable[str]) -> dict[str, int] | None:
    """Class → its value in the label files of the training; None where nothing is said.

    Args:
        values: as a checkpoint has them.
        classes: of the checkpoint.

    Raises:
        WeightsError: they are something else, or of other classes.
    """
    if values is None:
        return None
    known = isinstance(values, dict) and values.keys() <= set(classes)
    if not known or not all(type(v) is int and 0 <= v <= 255 for v in values.values()):
        raise _refused("label_values", values, "each class's value in label files, in 0…255")
    return values


def checked_provenance(provenance: Any) -> dict[str, Any] | None:
    """Where weights come from, as runs/provenance.py writes it; null where nothing is said.

    Raises:
        WeightsError: it is something else.
    """
    if provenance is None:
        return None
    if not isinstance(provenance, dict):
        raise _refused("provenance", provenance, "names and values")
    if not isinstance(provenance.get("init", ""), str):
        raise _refused("provenance.init", provenance["init"], "a word")
    splits = provenance.get("trained_on", [])
    if not isinstance(splits, list | tuple) or not all(isinstance(split, str) for split in splits):
        raise _refused("provenance.trained_on", splits, "a list of splits like VOC:train_aug")
    try:
        json.dumps(provenance)
    except (TypeError, ValueError) as error:
        raise _refused("provenance", provenance, f"plain values ({error})") from error
    return provenance


def _fits(value: Any, annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return isinstance(value, str) and value in get_args(annotation)
    if get_origin(annotation) is tuple:
        return isinstance(value, list | tuple) and all(
            _fits(part, get_args(annotation)[0]) for part in value
        )
    if annotation in (int, float) and type(value) in (int, annotation):
        return abs(value) < LARGEST
    return type(value) is annotation


def _in_words(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(get_args(annotation))}"
    if get_origin(annotation) is tuple:
        return f"a list, each {WORDS[get_args(annotation)[0]]}"
    return WORDS[annotation]


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    )


def _refused(name: str, value: Any, expected: str) -> WeightsError:
    found = " ".join(repr(value).split())
    found = found if len(found) < 80 else f"{found[:80]}…"
    return WeightsError(f"its {name} is {found}, expected {expected}. {DAMAGED}")
