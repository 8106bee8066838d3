"""Read what a run was trained on, and how, from its config.yaml, which nobody has typed.

It may have come with somebody's checkpoint, so nothing in it may run code or write to a place of
its choice.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import deeplab_lit.data as data_sets
from deeplab_lit.crf import PRESETS
from deeplab_lit.network.backbone import BackboneName
from deeplab_lit.network.head import HeadName
from deeplab_lit.network.inference import Inference
from deeplab_lit.network.weights.read import SUFFIXES
from deeplab_lit.yaml_files import ConfigError, read_options, with_todays_names

DATA_SETS = {
    f"{owner}{name}": name
    for name in data_sets.__all__
    if isinstance(cls := getattr(data_sets, name), type)
    and issubclass(cls, data_sets.SegmentationData)
    and cls is not data_sets.SegmentationData
    for owner in ("", "deeplab_lit.", "deeplab_lit.data.", f"{cls.__module__}.")
}
FURTHER_DATA = ("val_data", "unlabeled_data")  # data sets that a run may have beside its data
# options of the trainer whose words are names that Lightning knows, never paths or classes
NAMES = {"accelerator", "devices", "gradient_clip_algorithm", "precision", "strategy"}
EARLY_STOPPING = ("EarlyStopping", "lightning.pytorch.callbacks.EarlyStopping")
# options of the model that take a class, which is imported → the names that are none
CLASS_TYPED: dict[str, Collection[str]] = {
    "loss": (),
    "optimizer": (),
    "lr_policy": ("poly", "step"),
    "backbone": get_args(BackboneName),
    "head": get_args(HeadName),
}
TEXT = {"weights", "freeze"}  # options of the model that are text, and never a class
TORCH_OPTIMIZER = r"torch\.optim(\.\w+)?\.[A-Z]\w+"
LOSS_HERE = r"deeplab_lit\.training\.losses\.[A-Z]\w+"
PLACES = {"dirpath", "cache_dir", "default_root_dir"}  # where something would be written
OF_THE_PLACE = {"config", "ckpt_path", "experiment", "run", "runs_dir"}  # said by where it lies
INFERENCE = [field.name for field in fields(Inference)]  # options of how images are seen
# section of a training's configuration → the options in it that say how it was scored; None: all
SCORING: dict[str, Collection[str] | None] = {
    "data": None,
    "val_data": None,
    "loader": None,
    "eval": [*INFERENCE, "score_resized", "subsets"],
    "trainer": ("accelerator", "devices", "precision"),
}


def read_run(
    config: Path,
    sections: Mapping[str, Collection[str] | None] | None = None,
    *,
    typed: Collection[str] = (),
) -> dict[str, Any]:
    """Read what a run was trained on, and how, from its config.yaml.

    Options are taken under today's names. What would run code, or write to a place of its own
    choice, is refused: nobody has typed that file, and it may have come with a checkpoint.

    Args:
        config: the file.
        sections: section → the options to take of it, None for all, like `SCORING`. None: the
            whole configuration, but for the name and place of the run.
        typed: class paths that the user has typed: classes of other packages among them are taken.

    Raises:
        ConfigError: it cannot be read; or, in what would be taken, it names a class that is not
            one of this package's data sets, a folder to write to, or anything else that is more
            than a plain value.
    """
    content = read_options(config)
    if "crf" in content:
        content["crf"] = todays_crf(content["crf"])
    content = with_todays_names(content)
    if sections is None:
        taken = {key: value for key, value in content.items() if key not in OF_THE_PLACE}
    else:
        taken = {"data": content.get("data")} | {
            section: _options_of(content[section], names)
            for section, names in sections.items()
            if section in content
        }
    for key, value in taken.items():
        is_set = key == "data" or (key in FURTHER_DATA and value is not None)
        why_not = _of_data(key, value, typed) if is_set else _of_section(key, value, typed)
        if why_not:
            way = "name the data, as --data VOC --data.root VOCdevkit"
            if key == "model_class":
                way = f"type the class again: --model {value}"
            raise ConfigError(
                f"{config} was not typed, and {why_not}, which is not followed unasked. If you "
                f"trust that file: --config {config}; or {way}"
            )
    return taken


def todays_crf(section: Any) -> Any:
    """Return the section `crf` of a run's configuration as it is written today; None: no CRF.

    Args:
        section: that of an older run has `enabled`, `preset`, and None for what the preset says;
            others, and those with an unknown preset, are returned as they are.
    """
    if not isinstance(section, dict) or not section.keys() & {"enabled", "preset"}:
        return section
    if section.get("enabled") is not True:
        return None
    released = PRESETS.get(str(section.get("preset", "resnet101")))
    if released is None:
        return section
    values = {key: value for key, value in section.items() if value is not None}
    return released | {k: v for k, v in values.items() if k not in ("enabled", "preset")}


def neighborhood(config: Path) -> dict[str, str]:
    """Return the options under which a run lies where it was written: its neighbors go there too.

    Returns:
        None of them for a run that was moved, or came from elsewhere.
    """
    content = read_options(config)
    runs, experiment = content.get("runs_dir"), content.get("experiment")
    if not isinstance(runs, str) or not isinstance(experiment, str | None):
        return {}
    place = config.resolve().parent.parent
    if place.parent != Path(runs).resolve() or experiment not in (None, place.name):
        return {}
    return {key: content[key] for key in ("runs_dir", "experiment") if content.get(key)}


def _options_of(section: Any, names: Collection[str] | None) -> Any:
    """Return a section with some of its options; whole where `names` is None."""
    if names is None or not isinstance(section, dict):
        return section if names is None else {}
    return {name: section[name] for name in names if name in section}


def _of_data(key: str, section: Any, typed: Collection[str]) -> str | None:
    """Return what forbids to follow a section that names a data set; None where nothing does."""
    spec = {"class_path": section} if isinstance(section, str) else section
    if not isinstance(spec, dict) or not spec.keys() <= {"class_path", "init_args"}:
        return f"its {key} is {section!r:.80}, expected a class_path and init_args"
    name = spec.get("class_path")
    if not isinstance(name, str) or (name not in DATA_SETS and name not in typed):
        return f"its {key} are of the class {name!r:.80}, which is none of deeplab_lit.data"
    arguments = spec.get("init_args") or {}
    if name not in DATA_SETS and (path := _class_in(arguments, typed)):
        return f"its {key} name the class {path!r:.80}"
    return _unplain(arguments, key)


def _of_section(name: str, section: Any, typed: Collection[str]) -> str | None:
    """Return what forbids to follow another section; None where nothing does."""
    if name == "metrics":
        specs = section if isinstance(section, list) else [section]
        if path := next(filter(None, (named_class("", spec, typed) for spec in specs)), None):
            return f"metrics are {path!r:.80}"
        section = [None if isinstance(s, str) else _without_class(s, typed) for s in specs]
    if name == "model" and isinstance(section, dict):
        for key, value in section.items():
            if path := named_class(key, value, typed):
                return f"model.{key} is {path!r:.80}"
        section = {key: _without_class(value, typed) for key, value in section.items()}
    if isinstance(section, str) and not (name == "model_class" and section in typed):
        return f"{name} is {section!r:.80}"
    if name == "trainer" and isinstance(section, dict):
        section = {key: value for key, value in section.items() if not _is_harmless(key, value)}
    if why_not := _unplain(section, name):
        return why_not
    for key, value in section.items() if isinstance(section, dict) else ():
        words = value if isinstance(value, list) else [value]
        if key in PLACES and value is not None:
            return f"{name}.{key} is the place {value!r:.80}"
        if name == "checkpoint" and key == "filename" and not re.fullmatch(r"[^/\\]*", str(value)):
            return f"{name}.{key} is the place {value!r:.80}"
        if name == "trainer" and any(
            isinstance(word, str | dict | list)
            and not (key in NAMES and re.fullmatch(r"[\w,-]+", str(word)))
            for word in words
        ):
            return f"{name}.{key} is {value!r:.80}"
    return None


def named_class(option: str, value: Any, typed: Collection[str]) -> str | None:
    """Return a class, or a file, that an option of the model names and nobody has typed, if any.

    The parser imports such a class, or follows such a file, in whatever form it is named.

    Args:
        option: of the model, without its section; "": one that takes nothing but classes.
        value: of the option.
        typed: class paths that the user has typed.
    """
    if option in TEXT:
        return None
    if isinstance(value, dict) and "class_path" in value:
        value, arguments = value["class_path"], value.get("init_args")
        if option == "loss" and _is_known(value) and isinstance(arguments, dict):
            arguments = {k: v for k, v in arguments.items() if k != "file"}  # of weights, as data
        if path := _class_in(arguments, typed):
            return path
    if option and option not in CLASS_TYPED:
        return _class_in(value, typed)
    if value is None or value in typed or value in CLASS_TYPED.get(option, ()):
        return None
    return None if option in ("optimizer", "loss") and _is_known(value) else str(value)


def _is_known(path: Any) -> bool:
    """Return whether a class path is that of an optimizer of torch's or of a loss of ours."""
    return re.fullmatch(f"{TORCH_OPTIMIZER}|{LOSS_HERE}", str(path)) is not None


def _class_in(value: Any, typed: Collection[str]) -> str | None:
    """Return the first text in a value that may be a class path, a section or a file, if any."""
    if isinstance(value, dict | list | tuple):
        parts = value.values() if isinstance(value, dict) else value
        return next(filter(None, (_class_in(part, typed) for part in parts)), None)
    if not isinstance(value, str) or value in typed:
        return None
    is_path = re.fullmatch(r"\s*[^\W\d]\w*(\.\w+)+\s*", value) or "class_path" in value
    if is_path and value.endswith(SUFFIXES):  # of weights, which no class is called like
        return None
    return value if is_path or value.endswith((".yaml", ".yml", ".json")) else None


def _without_class(value: Any, typed: Collection[str]) -> Any:
    """Return the options of a class that the user has typed, or that is known."""
    if not isinstance(value, dict) or not value.keys() <= {"class_path", "init_args"}:
        return value
    path = str(value.get("class_path"))
    return (value.get("init_args") or {}) if path in typed or _is_known(path) else value


def _is_harmless(key: str, value: Any) -> bool:
    """Return whether an option of the trainer is one of those that are more than a plain value.

    These are: times, Lightning's own small profilers, and EarlyStopping, none of which runs code
    of others or writes anything.
    """
    if key in ("max_time", "val_check_interval") and isinstance(value, str):
        return re.fullmatch(r"[\d:]+", value) is not None
    if key == "profiler":
        return value in ("simple", "advanced")
    if key == "callbacks":
        listed = value if isinstance(value, list) else [value]
        return all(
            isinstance(spec, dict)
            and spec.keys() <= {"class_path", "init_args"}
            and spec.get("class_path") in EARLY_STOPPING
            and _unplain(spec.get("init_args"), key) is None
            for spec in listed
        )
    return False


def _unplain(value: Any, name: str) -> str | None:
    """Name the first part that is more than numbers, text, lists and names of options, if any."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str) or not key.isidentifier() or key == "class_path":
                return f"{name} holds {key!r:.80}"
            if why_not := _unplain(part, f"{name}.{key}"):
                return why_not
        return None
    if isinstance(value, list):
        return next(filter(None, (_unplain(part, name) for part in value)), None)
    if value is None or isinstance(value, bool | int | float | str):
        return None
    return f"{name} is {value!r:.80}"
