"""Plan the runs of a sweep: one training and one validation for each setting and seed.

Settings that differ only in how a network is evaluated (crf.…, eval.…) share a training. The name
of a run ends in a fingerprint of all that was asked of it, configuration files included: another
configuration is another run, and the same one is found again.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplab_lit.ablate.sweep import (
    SEED,
    Sweep,
    SweepError,
    arguments,
    check_number,
    is_for_scoring,
    overlaps,
)
from deeplab_lit.cli.parser import CONFIG, joined_configs
from deeplab_lit.errors import UserError
from deeplab_lit.yaml_files import read_yaml

PAPER = {(12,): "LargeFOV", (2, 4, 8, 12): "ASPP-S", (6, 12, 18, 24): "ASPP-L"}


@dataclass(frozen=True)
class Step:
    """One process: a run of `fit` or of `validate`.

    Attributes:
        verb: "fit" or "validate".
        folder: run folder, which the process makes.
        args: command line, without the options that name the folder.
        needs: step that has to be done before; None: there is none.
    """

    verb: str
    folder: Path
    args: tuple[str, ...]
    needs: "Step | None" = None


@dataclass(frozen=True)
class Run:
    """One setting with one seed: a training, and the scoring of its best checkpoint.

    Attributes:
        setting: index of the setting; 0 is the baseline.
        seed: seed of the training.
        fit: training, which runs of other settings may share.
        validate: scoring.
    """

    setting: int
    seed: int
    fit: Step
    validate: Step


def plan(
    sweep: Sweep,
    folder: Path,
    *,
    seeds: int | None = None,
    crf: bool = False,
    options: Sequence[str] = (),
) -> list[Run]:
    """List all runs, seed by seed: after the first seed every setting has a result.

    Args:
        sweep: the grid.
        folder: where all run folders go.
        seeds: train with seeds 0…seeds−1. None: with those of the file.
        crf: score after the CRF too.
        options: further arguments of `fit`, the same for all runs.

    Raises:
        SweepError: a configuration that the command names cannot be read, an option sets what
            the settings differ in, or there are too many runs.
    """
    check_number(sweep.name, sweep.grid, seeds or len(sweep.seeds))
    for option in options:
        if any(overlaps(option, parameter) for parameter in sweep.grid):
            raise SweepError(
                f"{option}: the settings of {sweep.name} differ in that, so it cannot be the same "
                "for all; change the sweep file instead"
            )
    runs = []
    for seed in range(seeds) if seeds else sweep.seeds:
        for number, setting in enumerate(sweep.settings()):
            values = sweep.fixed | setting
            scoring = {k: v for k, v in values.items() if is_for_scoring(k)}
            training = {k: v for k, v in values.items() if k not in scoring} | {SEED: seed}
            fit_args = (*sweep.before, *arguments(training), *sweep.after, *options)
            words = label({k: v for k, v in setting.items() if k not in scoring}) or "same"
            fit_name = f"{_slug(words)}-seed{seed}-{fingerprint(fit_args)}"
            fit = Step("fit", folder / fit_name, fit_args)
            scoring_args = (*arguments(scoring), *(["--crf"] if crf else []))
            validate = Step(
                "validate",
                folder / f"{fit_name}-val-{fingerprint(scoring_args)}",
                (f"--ckpt_path={fit.folder / 'checkpoints/best.ckpt'}", *scoring_args),
                needs=fit,
            )
            runs.append(Run(number, seed, fit, validate))
    return runs


def labels_of(sweep: Sweep) -> list[str]:
    """Return the label of each setting; with full values where two would get the same label."""
    settings = sweep.settings()
    labels = [label(setting) for setting in settings]
    if len(set(labels)) == len(labels):
        return labels
    return ["; ".join(f"{name.rpartition('.')[2]} {v}" for name, v in s.items()) for s in settings]


def label(setting: dict[str, Any]) -> str:
    """Return a setting in words, as "atrous_rates 6, 12, 18, 24 (ASPP-L)"."""
    return "; ".join(f"{name.rpartition('.')[2]} {in_words(v)}" for name, v in setting.items())


def in_words(value: Any) -> str:
    """Return a value in words: rates with the paper's name, configurations without folder."""
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        return Path(value).stem
    if not isinstance(value, list):
        return str(value)
    words = ", ".join(map(str, value))
    name = next((name for rates, name in PAPER.items() if list(rates) == value), None)
    return f"{words} ({name})" if name else words


def _slug(words: str) -> str:
    return re.sub(r"[^\w.]+", "-", words).strip("-")[:60]


def fingerprint(args: Sequence[str]) -> str:
    """Return a hash of a command line and the content of its configurations: 8 hex digits.

    Raises:
        SweepError: a configuration cannot be read.
    """
    words = [
        _content(word.removeprefix(CONFIG)) if word.startswith(CONFIG) else word
        for word in joined_configs(args)
    ]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:8]


def _content(path: str) -> Any:
    try:
        return json.loads(json.dumps(read_yaml(path)))
    except (ValueError, TypeError) as error:  # ConfigError is one of the first
        raise SweepError(
            f"the configuration {path!r} cannot be read ({error}): ablations run from the folder "
            "that their paths start from, as `wandb agent` does"
        ) from error


def check_settings(runs: Sequence[Run], labels: Sequence[str]) -> None:
    """Refuse settings that `fit` does not take, before the first process starts.

    The options of scoring are checked too: `fit` has them all.

    Args:
        runs: runs that are to be made; of each setting the first is looked at.
        labels: labels of all settings.

    Raises:
        SweepError: an option does not exist, or cannot have that value; names the settings.
    """
    from deeplab_lit.cli.defaults import implied_config
    from deeplab_lit.cli.options import model_class
    from deeplab_lit.cli.run import RunParser, build_parser, command_line, parse_run
    from deeplab_lit.training.module import DeepLabModule

    firsts: dict[int, Run] = {}
    for run in runs:
        firsts.setdefault(run.setting, run)
    parsers: dict[type[DeepLabModule], RunParser] = {}  # one for each --model of the settings
    refused: dict[str, list[str]] = {}
    for setting, run in firsts.items():
        args = [*run.fit.args, *run.validate.args]
        try:
            argv = command_line([word for word in args if not word.startswith("--ckpt_path=")])
            module = model_class(argv, DeepLabModule)
            if module not in parsers:
                parsers[module] = build_parser("fit", "", "", module)
            parse_run(parsers[module], "fit", argv, implied_config("fit", argv))
        except UserError as error:
            refused.setdefault(str(error), []).append(f"“{labels[setting]}”")
    if refused:
        lines = [
            f"{'all settings' if len(names) == len(firsts) > 1 else ', '.join(names)}: {reason}"
            for reason, names in refused.items()
        ]
        raise SweepError("no run was started, for fit does not take\n  " + "\n  ".join(lines))
