"""The YAML that people write, configurations and sweep files: read as data, and checked.

PyYAML takes the last of two equal keys, and follows aliases however much they multiply.
"""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from deeplab_lit.errors import UserError
from deeplab_lit.shipped import near

MODE = "checked_yaml"  # the parsers' name for `load_checked`
LARGEST = 1_000_000  # bytes of a file
MOST = 100_000  # values, those that aliases repeat included
DEEPEST = 40
# former option → its name today; a command line is told it, the configurations of runs are read so
FORMER: dict[str, str] = {
    "crf.enabled": "crf",
    "crf.preset": "crf configs/crf/vgg16.yaml",
    "eval.band": "eval.trimap",
    "data.batch_size": "loader.batch_size",
    "data.total_batch_size": "loader.total_batch_size",
    "data.crop_size": "loader.crop_size",
    "data.scales": "loader.scales",
    "data.color_jitter": "loader.color_jitter",
    "data.eval_batch_size": "loader.eval_batch_size",
    "data.num_workers": "loader.num_workers",
    "data.check": "loader.check",
}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")

_load = get_loader("yaml")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast


class ConfigError(UserError, ValueError):
    """A YAML file cannot be used; says which, where and why."""


def read_yaml(path: str | Path) -> Any:
    """Read a file: its content as plain values.

    Raises:
        ConfigError: it cannot be read, is no UTF-8 text or no YAML, or has a key twice, values
            that contain themselves, or far too many of them.
    """
    return read_text(_content(path), str(path))


def read_text(text: str, name: str) -> Any:
    """Read YAML: its content as plain values.

    Args:
        text: the YAML.
        name: of its place, for errors.

    Raises:
        ConfigError: as `read_yaml`.
    """
    problem = problem_in(text)
    if problem:
        raise ConfigError(f"{name} {problem}")
    try:
        return yaml.load(text, _Loader)  # the safe one, in C where there is one
    except (yaml.YAMLError, ValueError, TypeError) as error:  # as a date with a 13th month
        raise ConfigError(f"{name} is no YAML that can be used: {_first_line(error)}") from error


def read_options(path: str | Path) -> dict[str, Any]:
    """Read a configuration: option → value, or section → options.

    Raises:
        ConfigError: as `read_yaml`; or it holds something else.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        kinds = {dict: "other keys than names", list: "a list", type(None): "nothing"}
        kind = kinds.get(type(content), "one value")
        raise ConfigError(f"{path} is no configuration: it holds {kind}, expected options")
    return content


def load_checked(text: str) -> Any:
    """Load YAML as jsonargparse does, checked as by `read_yaml`.

    Raises:
        yaml.YAMLError: it is not valid, or not to be used.
    """
    if any(sign in text for sign in ":{[&?"):  # elsewhere there are no keys, and no depths
        problem = problem_in(text)
        if problem:
            raise yaml.YAMLError(f"it {problem}")
    return _load(text)


set_loader(MODE, load_checked, (yaml.YAMLError,))


class _Dumper(yaml.SafeDumper):
    """Quotes text that jsonargparse would load as a number, and PyYAML would not: "1e3"."""


_Dumper.add_implicit_resolver(
    "number", re.compile(r"[-+]?[\d_.]+[eE][-+]?\d+"), list("-+.0123456789")
)


def as_yaml(content: Mapping[str, Any]) -> str:
    """Return the YAML of a configuration, of which `load_checked` makes the same again."""
    return yaml.dump(dict(content), Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def problem_in(text: str) -> str | None:
    """Return what is wrong with a YAML text, as the end of a sentence; None where nothing is."""
    try:
        root = _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        return f"is no YAML{where}: {error.problem or error.context}"
    except yaml.YAMLError as error:
        return f"is no YAML: {_first_line(error)}"
    except RecursionError:
        return f"is nested more than {DEEPEST} deep"
    to_see = [(root, frozenset[int]())] if root else []
    for _ in range(MOST):
        if not to_see:
            return None
        node, above = to_see.pop()
        line = f"line {node.start_mark.line + 1}"
        if id(node) in above:
            return f"has a value that contains itself, through an alias ({line})"
        if len(above) > DEEPEST:
            return f"is nested more than {DEEPEST} deep ({line})"
        if isinstance(node, yaml.ScalarNode):
            continue
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            first: dict[Any, int] = {}
            for key, _ in parts:
                name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
                at = key.start_mark.line + 1
                if name in first:
                    return f"has {key.value} twice, in line {first[name]} and in line {at}"
                first[name] = at
            parts = [part for pair in parts for part in pair]
        below = above | {id(node)}
        to_see += [(part, below) for part in parts]
    return f"holds more than {MOST:,} values, those that aliases repeat included"


def _compose(text: str) -> yaml.Node | None:
    """Return the nodes of a YAML text; what is wrong with it is said in PyYAML's own words."""
    try:
        return yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        if "maximum nesting depth" in str(error):  # of which PyYAML would be sure after seconds
            raise RecursionError from error
        return yaml.compose(text, yaml.SafeLoader)


def with_todays_names(content: dict[str, Any]) -> dict[str, Any]:
    """Return a run's configuration with former options under the names that they have today."""
    content = copy.deepcopy(content)
    for former, name in FORMER.items():
        section, _, option = former.partition(".")
        holder = content.get(section)
        if section == "data" and isinstance(holder, dict):
            holder = holder.get("init_args")
        if isinstance(holder, dict) and option in holder:
            value = holder.pop(option)
            section, _, option = name.partition(".")
            target = content.setdefault(section, {})
            if isinstance(target, dict):
                target.setdefault(option, value)
    return content


def _content(path: str | Path) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: it cannot be read, is too large, or no UTF-8 text.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, IsADirectoryError):
            raise ConfigError(f"{path} is a folder, expected a YAML file") from error
        reason = getattr(error, "strerror", None) or error
        hint = near(str(path)) if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{path} cannot be read: {reason}{hint}") from error
    if len(content) > LARGEST:
        raise ConfigError(f"{path} has more than {LARGEST / 1e6:g} MB, so it is no configuration")
    if content.startswith(UTF_16):
        raise ConfigError(f"{path} is UTF-16 text: save it as UTF-8")
    if b"\0" in content:
        raise ConfigError(f"{path} is a binary file, expected YAML, which is text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}): save it as UTF-8"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
