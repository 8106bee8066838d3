"""Our own files: checkpoints of `fit` and `convert`, exported weights, state dicts of DeepLabV2."""

import json
from collections.abc import Iterable
from typing import Any

from deeplab_lit.network.weights.formats.settings import (
    checked_classes,
    checked_label_values,
    checked_network,
    checked_provenance,
)
from deeplab_lit.network.weights.formats.source import Source, StateDict, drop_head
from deeplab_lit.network.weights.read import WeightsError

NAME = "deeplab_lit"


def is_own(keys: Iterable[str]) -> bool:
    """Whether these are our names."""
    return any(key.removeprefix("net.").startswith("backbone.") for key in keys)


def from_own(content: dict[str, Any], state: StateDict) -> Source:
    """The file as it is; a state dict alone does not say which network it belongs to.

    Raises:
        WeightsError: what it says of itself is damaged.
    """
    source = Source(NAME, strip(state, "net."))
    source.copied = {
        key: name for key in state if (name := key.removeprefix("net.")) in source.state
    }
    source.skipped = {key: "not of the network" for key in state if key not in source.copied}
    remarks = content.get("metadata")
    if isinstance(remarks, dict) and "classes" in remarks:
        content = _exported(remarks)
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


def _exported(remarks: dict[str, str]) -> dict[str, Any]:
    """What a checkpoint would say, from the remarks in a safetensors file that `export` wrote."""
    try:
        facts = {name: json.loads(text) for name, text in remarks.items()}
        classes = dict(zip(facts["classes"], facts["palette"], strict=True))
        settings = {**facts["network"], "classes": classes}
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"its remarks are not those that export writes ({error!r})") from error
    content = {name: facts[name] for name in ("provenance", "label_values") if name in facts}
    return {"hyper_parameters": settings, **content}


def strip(state: StateDict, prefix: str) -> StateDict:
    """The entries below `prefix`, without it; all of them where none has it."""
    below = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    return below or state
