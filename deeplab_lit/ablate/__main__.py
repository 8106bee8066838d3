"""python -m deeplab_lit.ablate: train every setting of a sweep file and compare them; see --help.

FILE is a sweep file of Weights & Biases (configs/ablations/). Here it runs on this machine, offline
if you like, one process a run; `wandb sweep FILE` gives it to agents anywhere. Runs that are
finished are not run again, interrupted ones go on; the first setting is the baseline. Options with
a dot in their name, like --data.root=DIR, go to every training.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from deeplab_lit.ablate.plan import Run, check_settings, labels_of, plan
from deeplab_lit.ablate.sweep import Sweep, SweepError, read_sweep
from deeplab_lit.cli.parser import Parser, parse
from deeplab_lit.errors import lasting_screen, plain_errors
from deeplab_lit.text import plural, redacted_words

# What takes torch is imported where it is used, so that --help and mistakes are answered at once.

EXAMPLES = [
    "python -m deeplab_lit.ablate configs/ablations/shapes/atrous_rates.yaml",
    "python -m deeplab_lit.ablate configs/ablations/shapes/atrous_rates.yaml --report",
]
LONGEST_TAG = 64  # W&B refuses longer ones


def build_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(prog="python -m deeplab_lit.ablate", description=__doc__, examples=EXAMPLES)
    parser.add_argument("file", type=str, metavar="FILE", help="Sweep file, method grid.")
    parser.add_argument("--jobs", type=PositiveInt, default=1, help="Trainings at a time.")
    parser.add_argument(
        "--seeds",
        type=PositiveInt | None,
        default=None,
        help="Seeds 0…SEEDS−1 instead of the file's.",
    )
    parser.add_argument(
        "--crf", action="store_true", help="Score after the dense CRF too, with default parameters."
    )
    parser.add_argument("--runs_dir", type=str, default="runs", help="Folder of all experiments.")
    parser.add_argument(
        "--report",
        action="store_true",
        help="Run nothing; report what is there, at any time: give the same --crf, --seeds, --x.y.",
    )
    parser.add_argument(
        "--dashboard",
        action="store_true",
        help="Run nothing; build W&B's dashboards and the draft of a report there (online).",
    )
    parser.add_argument(
        "--entity", type=str | None, default=None, help="W&B's user or team instead of the file's."
    )
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        args: command line; None: that of the process.

    Raises:
        SystemExit: code 1 if a run has failed, 2 for a mistake in the input, 130 after Ctrl-C.
    """
    with plain_errors(), lasting_screen():
        own_words, fit_options = split_options(sys.argv[1:] if args is None else args)
        options = parse(build_parser(), own_words)
        sweep = read_sweep(options.file)
        sweep = replace(sweep, entity=options.entity or sweep.entity)
        if options.dashboard:
            _dashboard(sweep, options, fit_options)
        else:
            _ablate(sweep, options, fit_options)


def split_options(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into options of ablate and options of fit, which have a dot.

    Returns:
        The words for ablate as they are; options of fit as --name=value.

    Raises:
        SweepError: an option of fit has no value.
    """
    own_words: list[str] = []
    fit_options: list[str] = []
    words = iter(argv)
    for word in words:
        flag, has_value, _ = word.partition("=")
        if not flag.startswith("--") or "." not in flag:
            own_words.append(word)
        elif has_value:
            fit_options.append(word)
        else:
            value = next(words, "--")
            if value.startswith("--"):
                raise SweepError(f"{word} has no value: write {word}=VALUE")
            fit_options.append(f"{word}={value}")
    return own_words, fit_options


def _dashboard(sweep: Sweep, options: Namespace, fit_options: list[str]) -> None:
    """Build what W&B shows of the sweep, and print where."""
    from deeplab_lit.ablate.dashboard import save_dashboards

    seeds = [f"--seeds={options.seeds}"] if options.seeds else []
    words = [options.file, *seeds, *(["--crf"] if options.crf else []), *fit_options]
    command = ["python", "-m", "deeplab_lit.ablate", *redacted_words(words)]
    addresses = save_dashboards(sweep, _plan(sweep, options, fit_options), command)
    print("\n".join(f"{name}  {address}" for name, address in addresses.items()))


def _plan(sweep: Sweep, options: Namespace, fit_options: list[str]) -> list[Run]:
    folder = Path(options.runs_dir) / sweep.name
    return plan(sweep, folder, seeds=options.seeds, crf=options.crf, options=fit_options)


def _ablate(sweep: Sweep, options: Namespace, fit_options: list[str]) -> None:
    """Run the sweep, unless only a report is wanted, and report it."""
    from deeplab_lit.ablate.report import write_report
    from deeplab_lit.ablate.results import is_done

    folder = Path(options.runs_dir) / sweep.name
    runs, labels = _plan(sweep, options, fit_options), labels_of(sweep)
    came_to_an_end, failures = True, list[str]()
    if not options.report:
        check_settings([run for run in runs if not is_done(run)], labels)
        _make_folder(folder)
        print(
            f"{sweep.name}: {plural(len(labels), 'setting')}, "
            f"{plural(len(runs) // len(labels), 'seed')}; runs and logs in {folder}",
            flush=True,
        )
        came_to_an_end, failures = _run(sweep, runs, labels, options.jobs)
    write_report(sweep, runs, folder, fit_options)
    if not came_to_an_end:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        raise SystemExit(130)
    if failures:
        raise SystemExit(1)


def _run(
    sweep: Sweep, runs: Sequence[Run], labels: Sequence[str], jobs: int
) -> tuple[bool, list[str]]:
    """Run all steps, and print what came of them.

    Returns:
        Whether they came to an end, without an interruption; and a sentence on each failure.
    """
    from deeplab_lit.ablate.process import log_of
    from deeplab_lit.ablate.runner import Live, Runner, summary

    steps = list(dict.fromkeys(step for run in runs for step in (run.fit, run.validate)))
    gpus = visible_gpus() if jobs > 1 else []
    runner = Runner(steps, jobs, gpus, wandb_variables(sweep), Live(runs, labels, jobs))
    came_to_an_end = runner.run()
    print(summary(runner.states, jobs))
    failures = [
        f"failed: {step.folder.name}: {state.reason}\n  {log_of(step)}"
        for step, state in runner.states.items()
        if state.status == "failed"
    ]
    for failure in failures:
        print(failure, file=sys.stderr)
    return came_to_an_end, failures


def wandb_variables(sweep: Sweep) -> dict[str, str]:
    """Return environment variables that say how W&B files the runs."""
    tag = sweep.name.replace(",", " ").strip()[:LONGEST_TAG]
    variables = {"WANDB_TAGS": f"ablation,{tag}"}
    if sweep.project:
        variables["WANDB_PROJECT"] = sweep.project
    if sweep.entity:
        variables["WANDB_ENTITY"] = sweep.entity
    return variables


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(
            f"{folder} cannot be made ({error.strerror}): choose another --runs_dir"
        ) from error


def visible_gpus() -> list[str]:
    """Return the GPUs that may be used, by the names that CUDA_VISIBLE_DEVICES gives them."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is not None:
        return [name for name in names.split(",") if name]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


if __name__ == "__main__":
    main()
