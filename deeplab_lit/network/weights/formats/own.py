"""Our own files: checkpoints of `fit` and `convert`, exported weights, state dicts of DeepLabV2.

What a file says of itself may be anything, since it comes from a file: it is checked.
"""

import inspect
import json
import re
from collections.abc import Iterable
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.multiscale import LARGEST_SCALE
from deeplab_lit.network.weights import DEEPLAB_LIT
from deeplab_lit.network.weights.formats.source import Source, StateDict, drop_head, strip
from deeplab_lit.network.weights.read import WeightsError
from deeplab_lit.types import Classes

DAMAGED = "The file is damaged, or not of this program: take another copy of it"
MOST_CLASSES = 10_000
LARGEST = 2**31  # what torch takes for a rate or a stride
CLASS_PATH = re.compile(r"\w+(\.\w+)+")  # of a backbone or head outside this package
UNIONS = (Union, UnionType)  # how Python writes X | Y, by what X and Y are
WORDS = {int: "a whole number", bool: "true or false", float: "a number"}


def is_own(keys: Iterable[str]) -> bool:
    """Tell whether these are our names of weights."""
    return any(key.removeprefix("net.").startswith("backbone.") for key in keys)


def from_own(content: dict[str, Any], state: StateDict) -> Source:
    """Convert a file of ours; a state dict alone does not say which network it belongs to.

    Args:
        content: of the file.
        state: the weights in it that are to be used.

    Raises:
        WeightsError: what it says of itself is damaged.
    """
    source = Source(DEEPLAB_LIT, strip(state, "net."))
    source.copied = {
        key: name for key in state if (name := key.removeprefix("net.")) in source.state
    }
    source.skipped = {key: "not of the network" for key in state if key not in source.copied}
    metadata = content.get("metadata")
    if isinstance(metadata, dict) and "classes" in metadata:
        content = _exported(metadata)
    source.provenance = checked_provenance(content.get("provenance"))
    settings = content.get("hyper_parameters")
    if settings is None:
        return source
    source.network = checked_network(settings)
    if "classes" in settings:
        source.classes = checked_classes(settings["classes"])
        source.num_classes = len(source.classes)
        source.label_values = checked_label_values(content.get("label_values"), source.classes)
    else:  # of another program, or to train from
        drop_head(source, "a head, but the file does not say of which classes")
    return source


def _exported(metadata: dict[str, str]) -> dict[str, Any]:
    """Return what a checkpoint would say, from a safetensors file that `export` wrote."""
    try:
        facts: dict[str, Any] = {name: json.loads(text) for name, text in metadata.items()}
        classes = dict(zip(facts["classes"], facts["palette"], strict=True))
        settings = {**facts["network"], "classes": classes}
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"its remarks are not those that export writes ({error!r})") from error
    content: dict[str, Any] = {"hyper_parameters": settings}
    return content | {k: facts[k] for k in ("provenance", "label_values") if k in facts}


def checked_network(settings: Any) -> dict[str, Any]:
    """Return those of a checkpoint's hyper_parameters that are arguments of DeepLabV2.

    Most ranges are left to DeepLabV2.

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
    """Return name → RGB color, from a checkpoint's hyper_parameters.

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
    return {name: (color[0], color[1], color[2]) for name, color in classes.items()}


def checked_label_values(values: Any, classes: Iterable[str]) -> dict[str, int] | None:
    """Return class → its value in the label files of the training; None: the file does not say.

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
    """Return where weights come from, as runs/provenance.py writes it; None: it is not said.

    Raises:
        WeightsError: it is something else.
    """
    if provenance is None:
        return None
    if not isinstance(provenance, dict):
        raise _refused("provenance", provenance, "names and values")
    if not isinstance(provenance.get("init", ""), str):
        raise _refused("provenance.init", provenance["init"], "a word")
    for name in ("trained_on", "unlabeled_on"):
        splits = provenance.get(name, [])
        are_listed = isinstance(splits, list | tuple)
        if not are_listed or not all(isinstance(split, str) for split in splits):
            raise _refused(f"provenance.{name}", splits, "a list of splits like VOC:train_aug")
    try:
        json.dumps(provenance)
    except (TypeError, ValueError) as error:
        raise _refused("provenance", provenance, f"plain values ({error})") from error
    return provenance


def _fits(value: Any, annotation: Any) -> bool:
    """Tell whether a value has the type of an argument of DeepLabV2."""
    if get_origin(annotation) in UNIONS:  # a name of ours, or a class, which files name
        is_class_path = isinstance(value, str) and CLASS_PATH.fullmatch(value) is not None
        return is_class_path or _fits(value, get_args(annotation)[0])
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
    if get_origin(annotation) in UNIONS:
        return _in_words(get_args(annotation)[0])
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
    """Return the error for a value; a long one is cut."""
    text = " ".join(repr(value).split())
    text = text if len(text) < 80 else f"{text[:80]}…"
    return WeightsError(f"its {name} is {text}, expected {expected}. {DAMAGED}")
