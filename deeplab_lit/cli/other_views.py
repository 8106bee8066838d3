"""Say where images are seen otherwise than they were in the training's validations."""

import json
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from deeplab_lit.network.inference import Inference
from deeplab_lit.runs.trained_on import INFERENCE
from deeplab_lit.text import say
from deeplab_lit.yaml_files import ConfigError, read_options


def as_list(value: Any) -> Any:
    """Return a tuple as a list, as files have it; any other value as it is."""
    return list(value) if isinstance(value, tuple) else value


def tell_other_views(path: str, inference: Mapping[str, Any]) -> None:
    """Say where a training saw the images that it scored otherwise than they are seen now.

    Args:
        path: of its checkpoint.
        inference: options of section `eval` → values in use; others are not compared.
    """
    config = Path(path).expanduser().parent.parent / "config.yaml"
    try:
        section = read_options(config).get("eval") or {}
        seen = vars(Inference(**{name: section[name] for name in INFERENCE if name in section}))
        seen["score_resized"] = section.get("score_resized", False)
    except (ConfigError, OSError, ValueError, TypeError, AttributeError):
        return  # no such file, or a damaged one: nothing to compare with
    differ = {
        name: as_list(value)
        for name, value in seen.items()
        if name in inference and as_list(value) != as_list(inference[name])
    }
    if differ:
        options = " ".join(f"--eval.{name} {quote(json.dumps(v))}" for name, v in differ.items())
        say(
            f"Note: the training scored with {options}; what is seen otherwise here does not "
            "compare with its numbers"
        )
