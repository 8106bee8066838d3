"""The sweep file: a grid in the format of Weights & Biases, which `wandb sweep` takes too.

Format: https://docs.wandb.ai/models/sweeps/define-sweep-configuration. Read is what a grid of `fit`
runs needs; every other key is refused, none is ignored.
"""

import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplab_lit.errors import UserError
from deeplab_lit.shipped import located
from deeplab_lit.text import plural
from deeplab_lit.yaml_files import ConfigError, read_yaml

SEED = "seed_everything"
KEYS = {
    "name",
    "description",
    "project",
    "entity",
    "method",
    "metric",
    "parameters",
    "command",
}
METRIC = r"val(_crf)?/miou(\w*)"  # val/miou16: of a subset of the classes, see scoring/subsets.py
SCORING = ("crf", "eval")  # sections of options that training does not depend on
RESERVED = ("run", "runs_dir", "ckpt_path")  # options that the runner gives to each process
BEFORE_MODULE = ("${env}", "${interpreter}", "python", "python3", "-m")
MOST_RUNS = 2000  # each is a process, a folder and a line; more than that is a slip of the pen
LONGEST_NAME = 200  # bytes: it becomes a folder's
EXAMPLE = '[${env}, python, -m, deeplab_lit.fit, "--config=configs/shapes.yaml", "${args}"]'


class SweepError(UserError, ValueError):
    """A sweep file cannot be used; names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class Sweep:
    """A grid of settings, each to be trained with several seeds.

    Attributes:
        name: name of the ablation, and the experiment that its runs are filed under.
        description: the question that it asks; may be empty.
        project: W&B project; None: the default one.
        before: arguments of `fit` in front of the parameters.
        after: arguments of `fit` behind the parameters.
        fixed: parameter → its only value.
        grid: parameter → its values, in the file's order.
        seeds: values of seed_everything.
        after_crf: compare settings by mIoU after the CRF: the file's metric is val_crf/miou….
        subset: compare them by the mIoU of this subset of the classes: "16" where the metric is
            val/miou16; "": of all classes.
        entity: W&B user or team; None: the default one.
    """

    name: str
    description: str
    project: str | None
    before: tuple[str, ...]
    after: tuple[str, ...]
    fixed: dict[str, Any]
    grid: dict[str, list]
    seeds: tuple[int, ...]
    after_crf: bool = False
    subset: str = ""
    entity: str | None = None

    def settings(self) -> list[dict[str, Any]]:
        """Return all combinations of the grid's values; the first is the baseline."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


def arguments(parameters: dict[str, Any]) -> list[str]:
    """Return parameters as W&B's agent writes `${args}`: --name=value, lists as Python does."""
    return [f"--{name}={value}" for name, value in parameters.items()]


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep file.

    Raises:
        SweepError: it cannot be read, or describes something else than a grid of `fit` runs.
    """
    path = Path(located(str(path)))
    try:
        content = read_yaml(path)
    except ConfigError as error:
        raise SweepError(str(error)) from error
    if not isinstance(content, dict):
        raise SweepError(f"{path} is no sweep file: it should have method, parameters, command")
    unknown = content.keys() - KEYS
    if unknown:
        raise SweepError(
            f"{path} has {', '.join(sorted(map(str, unknown)))}, which no run here would follow; "
            f"known are {', '.join(sorted(KEYS))}"
        )
    if content.get("method") != "grid":
        method = _cut(content.get("method"))
        raise SweepError(f"{path}: method is {method}, and only grid is run here")
    metric = content.get("metric") or {"name": "val/miou"}
    of_metric = metric.get("name") if isinstance(metric, dict) else None
    compared = re.fullmatch(METRIC, str(of_metric))
    if compared is None:
        raise SweepError(
            f"{path}: metric is {_cut(metric)}; its name should be val/miou or val_crf/miou, or "
            "that of a subset of the classes, as val/miou16"
        )
    for key in ("project", "entity"):
        if not isinstance(content.get(key), str | None):
            raise SweepError(f"{path}: {key} should be a name, got {content[key]!r}")
    fixed, grid = _parameters(path, content.get("parameters"))
    seeds = grid.pop(SEED, [fixed.pop(SEED, 0)])
    if any(type(seed) is not int or not 0 <= seed < 2**32 for seed in seeds):
        raise SweepError(f"{path}: {SEED} must be whole numbers, 0 or more, got {_cut(seeds)}")
    check_number(str(path), grid, len(seeds))
    before, after = _command(path, content.get("command"), grid)
    name = str(content.get("name") or path.stem)
    bad = "/" in name or name in (".", "..") or not name.isprintable()
    if bad or len(name.encode()) > LONGEST_NAME:
        raise SweepError(
            f"{path}: name {_cut(name)} becomes a folder: no slash or line break, not . or .., and "
            f"at most {LONGEST_NAME} bytes"
        )
    fixed.pop("experiment", None)  # the same name, for W&B's agents
    return Sweep(
        name=name,
        description=" ".join(str(content.get("description") or "").split()),
        project=content.get("project"),
        before=before,
        after=after,
        fixed=fixed,
        grid=grid,
        seeds=tuple(seeds),
        after_crf=compared[1] is not None,
        subset=compared[2],
        entity=content.get("entity"),
    )


def check_number(name: str, grid: dict[str, list], seeds: int) -> None:
    """Refuse a grid of too many runs, before it is built.

    Args:
        name: file or sweep, named in the error.
        grid: parameter → values.
        seeds: number of seeds.

    Raises:
        SweepError: there are more than MOST_RUNS runs.
    """
    settings = math.prod(map(len, grid.values()))
    if settings * seeds > MOST_RUNS:
        each = " × ".join(f"{len(values):,}" for values in grid.values())
        raise SweepError(
            f"{name}: {each} values are {settings:,} settings, with {plural(seeds, 'seed')} "
            f"{settings * seeds:,} runs, and at most {MOST_RUNS:,} are taken: give fewer values "
            "or seeds, or several files"
        )


def _parameters(path: Path, section: Any) -> tuple[dict[str, Any], dict[str, list]]:
    if not isinstance(section, dict) or not section:
        raise SweepError(f"{path}: parameters is missing: option of fit → {{values: […]}}")
    fixed: dict[str, Any] = {}
    grid: dict[str, list] = {}
    for name, spec in section.items():
        if not isinstance(name, str) or name in RESERVED:
            raise SweepError(
                f"{path}: parameter {_cut(name)} is not one of a setting: leave it out"
            )
        if isinstance(spec, dict) and spec.keys() == {"value"}:
            fixed[name] = spec["value"]
        elif isinstance(spec, dict) and spec.keys() == {"values"} and _several(spec["values"]):
            grid[name] = spec["values"]
        else:
            raise SweepError(
                f"{path}: parameter {_cut(name)} should have `value: …` or `values: […]`, each "
                f"value once, got {_cut(spec)}; a grid has no ranges or distributions, and nested "
                "options are written with dots, as model.atrous_rates"
            )
    if not grid.keys() - {SEED}:
        raise SweepError(f"{path}: no parameter has several values, so there is nothing to compare")
    return fixed, grid


def _cut(value: Any) -> str:
    """Return a value as text for a sentence, cut to 80 characters."""
    words = value if isinstance(value, str) and value.isprintable() else repr(value)
    return words if len(words) <= 80 else f"{words[:80]}…"


def is_for_scoring(parameter: str) -> bool:
    """Return whether only the scoring of a trained network depends on a parameter."""
    return parameter.partition(".")[0] in SCORING


def _several(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and len(set(map(str, values))) == len(values)


def overlaps(option: str, parameter: str) -> bool:
    """Return whether an option, as --model.lr=1, sets a parameter, a part of it or its section."""
    one, other = (
        f"{name.removeprefix('--').partition('=')[0].rstrip('+').replace('.init_args.', '.')}."
        for name in (option, parameter)
    )
    return one.startswith(other) or other.startswith(one)


def _command(path: Path, section: Any, grid: dict) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the arguments of `fit` before and after ${args}."""
    words = [str(word) for word in section] if isinstance(section, list) else []
    if "deeplab_lit.fit" not in words or words.count("${args}") != 1:
        raise SweepError(
            f"{path}: command should run deeplab_lit.fit with ${{args}}, for example {EXAMPLE}"
        )
    place = words.index("deeplab_lit.fit")
    if unknown := [word for word in words[:place] if word not in BEFORE_MODULE]:
        raise SweepError(
            f"{path}: command has {' '.join(unknown)} before deeplab_lit.fit, which no run here "
            f"would follow: each is one process of this Python; known are {' '.join(BEFORE_MODULE)}"
        )
    words = words[place + 1 :]
    place = words.index("${args}")
    before, after = words[:place], words[place + 1 :]
    if any("${" in word for word in before + after):
        raise SweepError(f"{path}: of W&B's macros only ${{env}} and ${{args}} are known here")
    for word in before + after:
        name = word.removeprefix("--").partition("=")[0]
        hidden = word in after and any(overlaps(word, parameter) for parameter in grid)
        if word.startswith("--") and (hidden or name in (*RESERVED, SEED, "experiment")):
            raise SweepError(
                f"{path}: {word} in command stands against the parameters, or the name that every "
                "run gets here: leave it out"
            )
    return tuple(before), tuple(after)
