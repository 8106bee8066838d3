"""What a command line leaves unsaid: the configuration of a run that names no data.

Such a configuration nobody has typed: it may have come with somebody's checkpoint. So nothing in it
may run code or write to a place of its choice; see `trusted`.
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import deeplab_lit.data as data_sets
from deeplab_lit.cli.parser import CONFIG, configs, joined_configs, read_config
from deeplab_lit.runs.folder import (
    NoCheckpointError,
    config_of,
    last_checkpoint,
    named_checkpoint,
)
from deeplab_lit.yaml_files import ConfigError, read_options

SHAPES = Path(__file__).parents[2] / "configs/shapes.yaml"
NAMES_DATA = {"--data", "--data.class_path", "--help", "-h", "--print_config"}
DATA_SETS = {
    f"{owner}{name}": name
    for name in data_sets.__all__
    if isinstance(cls := getattr(data_sets, name), type)
    and issubclass(cls, data_sets.SegmentationData)
    and cls is not data_sets.SegmentationData
    for owner in ("", "deeplab_lit.data.", f"{cls.__module__}.")
}
# options of the trainer whose words are names that Lightning knows, never paths or classes
NAMES = {"accelerator", "devices", "gradient_clip_algorithm", "precision", "strategy"}
EARLY_STOPPING = ("EarlyStopping", "lightning.pytorch.callbacks.EarlyStopping")
PLACES = {"dirpath", "cache_dir", "default_root_dir"}  # where something would be written
OF_THE_PLACE = {"config", "ckpt_path", "experiment", "run", "runs_dir"}  # said by where it lies
SCORING = ("scales", "tta_scales", "window", "overlap", "flip")
MACHINE = ("accelerator", "devices", "precision")


def implied_config(verb: str, argv: list[str]) -> Path | None:
    """The configuration to begin with: that of the checkpoint's run, or of Shapes.

    Args:
        verb: "fit" or "validate".
        argv: the command line behind it.

    Returns:
        A file; None where the command line or a configuration on it names data, or where there is
        none.

    Raises:
        RunFolderError: `--ckpt_path last`, but there is no run to go on with.
    """
    if names_data(argv):
        return None
    checkpoint = value_of(argv, "ckpt_path")
    if checkpoint == "last" and verb == "fit":
        runs, experiment = value_of(argv, "runs_dir") or "runs", value_of(argv, "experiment")
        run = value_of(argv, "run") or None
        try:
            checkpoint = last_checkpoint(Path(runs), experiment or "*", run)
        except NoCheckpointError:
            if run is None:
                raise
            checkpoint = ""  # this run begins
            if (config := config_of(Path(runs), experiment or "*", run)) is not None:
                return config
    if checkpoint:
        config = Path(checkpoint).expanduser().parent.parent / "config.yaml"
        return config if config.is_file() else None
    return SHAPES if verb == "fit" and not configs(argv) else None


def trusted(config: Path, verb: str) -> dict[str, Any]:
    """The content of a configuration that nobody has typed, as far as it may be followed unasked.

    `fit` goes on with a training, and takes it whole or not at all. Other commands take what was
    evaluated and how: the data, and for "validate" also the windows, scales and precision.

    Args:
        config: the file.
        verb: "fit", "validate" or "tune_crf".

    Raises:
        ConfigError: it cannot be read; or, in what would be taken, it names a class that is not
            one of this package's data sets, a folder to write to, or anything else that is more
            than a plain value.
    """
    content = {key: value for key, value in read_options(config).items() if key != "config"}
    lies_there = _lies_where_it_says(config, content)
    if verb == "fit":
        taken = {key: value for key, value in content.items() if key not in OF_THE_PLACE}
    else:
        taken = {"data": content.get("data")}
    if verb == "validate":
        for section, names in (("eval", SCORING), ("trainer", MACHINE)):
            own = content.get(section)
            if isinstance(own, dict):
                taken[section] = {name: own[name] for name in names if name in own}
    for key, value in taken.items():
        why_not = _of_data(value) if key == "data" else _of_section(key, value)
        if why_not:
            raise ConfigError(
                f"{config} was not typed, and {why_not}, which is not followed unasked. If you "
                f"trust that file: --config {config}; or name the data, as --data VOC --data.root "
                "VOCdevkit"
            )
    if lies_there and verb != "tune_crf":
        taken |= {key: content[key] for key in ("runs_dir", "experiment") if content.get(key)}
    return taken


def place_of(config: Path) -> dict[str, str]:
    """The options that name the run of a configuration, from where it lies."""
    run = config.absolute().parent
    return {
        "runs_dir": str(config.parent.parent.parent),
        "experiment": run.parent.name,
        "run": run.name,
    }


def _lies_where_it_says(config: Path, content: dict[str, Any]) -> bool:
    """Whether a run lies where it was written: then its neighbors go there too."""
    runs, experiment = content.get("runs_dir"), content.get("experiment")
    if not isinstance(runs, str) or not isinstance(experiment, str | None):
        return False
    place = config.resolve().parent.parent
    return place.parent == Path(runs).resolve() and experiment in (None, place.name)


def _of_data(section: Any) -> str | None:
    """What forbids to follow a data section; None where nothing does."""
    spec = {"class_path": section} if isinstance(section, str) else section
    if not isinstance(spec, dict) or not spec.keys() <= {"class_path", "init_args"}:
        return f"its data is {section!r:.80}, expected a class_path and init_args"
    name = spec.get("class_path")
    if not isinstance(name, str) or name not in DATA_SETS:
        return f"its data are of the class {name!r:.80}, which is none of deeplab_lit.data"
    return _unplain(spec.get("init_args") or {}, "data")


def _of_section(name: str, section: Any) -> str | None:
    """What forbids to follow another section; None where nothing does."""
    if isinstance(section, str):
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


def _is_harmless(key: str, value: Any) -> bool:
    """Whether an option of the trainer is one of those that are more than a plain value.

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
    """The first part that is more than numbers, text, lists and names of options; with its name."""
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


def names_data(argv: list[str]) -> bool:
    """Whether a command line, or a configuration on it, says which data; or asks for help."""
    return bool(flags(argv) & NAMES_DATA) or any("data" in _content(c) for c in configs(argv))


def _content(config: str) -> dict[str, Any]:
    """What a configuration says; what is wrong with one is said by the parser."""
    try:
        return read_config(config)
    except ConfigError:
        return {"data": None}


def configs_first(argv: list[str]) -> list[str]:
    """The command line with its configurations in front, so that every option wins over them."""
    words = joined_configs(argv)
    return sorted(words, key=lambda word: not word.startswith(CONFIG))


def with_checkpoint_named(argv: list[str]) -> list[str]:
    """Return the command line of a command that scores, with the file for `--ckpt_path last`.

    It is looked up once, so that the checkpoint and its run's configuration are of the same run.

    Raises:
        RunFolderError: there is no run.
    """
    if value_of(argv, "ckpt_path") != "last":
        return argv
    runs, experiment = value_of(argv, "runs_dir") or "runs", value_of(argv, "experiment")
    path = named_checkpoint("last", runs, experiment)
    return [*_without(argv, "--ckpt_path"), f"--ckpt_path={path}"]


def _without(argv: list[str], flag: str) -> list[str]:
    before = ["", *argv]
    return [
        arg
        for arg, previous in zip(argv, before, strict=False)
        if flag not in (arg, previous) and not arg.startswith(f"{flag}=")
    ]


def flags(argv: list[str]) -> set[str]:
    """The names of the options given, with their dashes."""
    return {arg.partition("=")[0] for arg in argv if arg.startswith("-")}


def value_of(argv: list[str], name: str) -> str:
    """The value of an option, as the parser takes it: the last one, of a configuration otherwise.

    Returns:
        Nothing where it is not said.
    """
    said = [str(content[name]) for c in configs(argv) if (content := _content(c)).get(name)]
    for arg, following in pairwise([*argv, ""]):
        if arg == f"--{name}":
            said.append(following)
        elif arg.startswith(f"--{name}="):
            said.append(arg.partition("=")[2])
    return said[-1] if said else ""
