"""Our own files: checkpoints of `fit` and `convert`, exported weights, state dicts of DeepLabV2."""

import inspect
import json
from collections.abc import Iterable
from typing import Any

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.files import WeightsError
from deeplab_lit.network.formats.source import Source, StateDict

NAME = "deeplab_lit"


def is_own(keys: Iterable[str]) -> bool:
    """Whether these are our names."""
    return any(key.removeprefix("net.").startswith("backbone.") for key in keys)


def from_own(content: dict[str, Any], state: StateDict) -> Source:
    """The file as it is; a state dict alone does not say which network it belongs to.

    Raises:
        WeightsError: the remarks in an exported file are damaged.
    """
    source = Source(NAME, strip(state, "net."), copied=list(state))
    if "classes" in content.get("metadata", {}):
        content = _exported(content["metadata"])
    source.provenance = content.get("provenance")
    settings = content.get("hyper_parameters")
    if not isinstance(settings, dict):
        return source
    known = inspect.signature(DeepLabV2).parameters
    source.network = {key: value for key, value in settings.items() if key in known}
    if isinstance(settings.get("classes"), dict):
        source.classes = {name: tuple(rgb) for name, rgb in settings["classes"].items()}
        source.num_classes = len(source.classes)
    return source


def _exported(remarks: dict[str, str]) -> dict[str, Any]:
    """What a checkpoint would say, from the remarks in a safetensors file that `export` wrote."""
    try:
        facts = {name: json.loads(text) for name, text in remarks.items()}
        classes = dict(zip(facts["classes"], facts["palette"], strict=True))
        settings = {**facts["network"], "classes": classes}
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"its remarks are not those that export writes ({error!r})") from error
    return {"hyper_parameters": settings, "provenance": facts.get("provenance")}


def strip(state: StateDict, prefix: str) -> StateDict:
    """The entries below `prefix`, without it; all of them where none has it."""
    below = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    return below or state
