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

import torch
from jsonargparse.typing import PositiveInt

from deeplab_lit.ablate.check import check
from deeplab_lit.ablate.live import Live, summary
from deeplab_lit.ablate.plan import labels_of, plan
from deeplab_lit.ablate.process import log_of
from deeplab_lit.ablate.report import write_report
from deeplab_lit.ablate.runner import Runner
from deeplab_lit.ablate.sweep import Sweep, SweepError, read_sweep
from deeplab_lit.cli.parser import Parser, parse
from deeplab_lit.errors import lasting_screen, plain_errors
from deeplab_lit.text import plural

LONGEST_TAG = 64  # W&B refuses longer ones


def build_parser() -> Parser:
    """The options."""
    parser = Parser(prog="python -m deeplab_lit.ablate", description=__doc__)
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
        "--dashboard", action="store_true", help="Run nothing; build W&B's dashboards (online)."
    )
    parser.add_argument(
        "--entity", type=str | None, default=None, help="W&B's user or team instead of the file's."
    )
    return parser


def options_of_fit(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line in two: ours, and the options with a dot in their name as --name=value.

    Raises:
        SweepError: one of these has no value.
    """
    ours, theirs, words = [], [], iter(argv)
    for word in words:
        flag, is_whole, _ = word.partition("=")
        if not flag.startswith("--") or "." not in flag:
            ours.append(word)
        elif is_whole:
            theirs.append(word)
        else:
            value = next(words, "--")
            if value.startswith("--"):
                raise SweepError(f"{word} has no value: write {word}=VALUE")
            theirs.append(f"{word}={value}")
    return ours, theirs


def main(args: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        SystemExit: code 1 if a run has failed, 2 for a mistake in the input, 130 after Ctrl-C.
    """
    with plain_errors(), lasting_screen():
        ours, theirs = options_of_fit(sys.argv[1:] if args is None else list(args))
        options = parse(build_parser(), ours)
        sweep = read_sweep(options.file)
        sweep = replace(sweep, entity=options.entity or sweep.entity)
        if options.dashboard:
            from deeplab_lit.ablate.dashboard import save_dashboards

            print("\n".join(f"{name}  {url}" for name, url in save_dashboards(sweep).items()))
            return
        _ablate(sweep, options, theirs)


def _ablate(sweep: Sweep, options: object, theirs: list[str]) -> None:
    folder = Path(options.runs_dir) / sweep.name
    runs = plan(sweep, folder, seeds=options.seeds, crf=options.crf, options=theirs)
    labels = labels_of(sweep)
    whole, failed = True, []
    if not options.report:
        check(runs, labels)
        _make(folder)
        steps = list(dict.fromkeys(step for run in runs for step in (run.fit, run.validate)))
        print(
            f"{sweep.name}: {plural(len(labels), 'setting')}, "
            f"{plural(len(runs) // len(labels), 'seed')}; runs and logs in {folder}",
            flush=True,
        )
        live = Live(runs, labels, options.jobs)
        runner = Runner(steps, options.jobs, _gpus(), variables_of(sweep), live)
        whole = runner.run()
        failed = [(s, state) for s, state in runner.states.items() if state.word == "failed"]
        print(summary(runner.states, options.jobs))
        for step, state in failed:
            print(f"failed: {step.folder.name}: {state.why}\n  {log_of(step)}", file=sys.stderr)
    write_report(sweep, runs, folder, theirs)
    if not whole:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        raise SystemExit(130)
    if failed:
        raise SystemExit(1)


def variables_of(sweep: Sweep) -> dict[str, str]:
    """How W&B files the runs, as variables of the environment."""
    tag = sweep.name.replace(",", " ").strip()[:LONGEST_TAG]
    variables = {"WANDB_TAGS": f"ablation,{tag}"}
    if sweep.project:
        variables["WANDB_PROJECT"] = sweep.project
    if sweep.entity:
        variables["WANDB_ENTITY"] = sweep.entity
    return variables


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(
            f"{folder} cannot be made ({error.strerror}): choose another --runs_dir"
        ) from error


def _gpus() -> list[str]:
    """The GPUs that we may use, by the names that CUDA_VISIBLE_DEVICES gives them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    return [str(i) for i in range(torch.cuda.device_count())]


if __name__ == "__main__":
    main()
