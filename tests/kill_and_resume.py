"""Kill a small `fit` at random moments, go on, and compare with a run that was never stopped.

    python -m tests.kill_and_resume [--kills 30] [--writing 10] [--seed 0]

By hand only. The first `--writing` kills hit a process while it writes a file, the others come at
random times. A run goes on by the command with which it began, is killed again or comes to its end,
and is then compared with the whole run: the names of its files; weights, optimizer, schedule and
step of both checkpoints; metrics.csv, results.json and config.yaml, all but what tells of time,
memory and place.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from deeplab_lit import fit
from deeplab_lit.atomic import PREFIX
from tests.conftest import TINY

SETTINGS = (  # (options, what they are)
    ({}, "validations within epochs"),
    ({"--trainer.accumulate_grad_batches": "2", "--trainer.val_check_interval": "6"}, "two a step"),
    (
        {"--trainer.check_val_every_n_epoch": "1", "--trainer.val_check_interval": "1.0"},
        "validations at the ends of epochs",
    ),
)
STEPS = {"--trainer.max_steps": "40", "--trainer.log_every_n_steps": "1", "--run": "x"}
TIMED = ("train/images_per_second", "train/resident_memory_gib")


def start(runs: Path, options: dict[str, str], log: Path) -> int:
    """Start `fit` in a fork, which has everything imported already; returns its process id."""
    if child := os.fork():
        return child
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = 1
    try:
        args = TINY | STEPS | options | {"--runs_dir": str(runs), "--ckpt_path": "last"}
        fit.main([f"{key}={value}" for key, value in args.items()])
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def writes(folder: Path) -> set[str]:
    """What is being written in a run's folder: the folders of unfinished files."""
    places = (folder, folder / "checkpoints")
    return {str(path) for place in places for path in place.glob(f"{PREFIX}*")}


def kill(child: int, folder: Path, after: float, within: float | None) -> str | None:
    """Kill a process after so many seconds, or so many seconds into its next write then.

    Returns:
        The file that was being written, "" outside of writes; None: it had ended.
    """
    begin, known = time.monotonic(), writes(folder)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() - begin > after:
            new = writes(folder) - known
            if new and within is not None:
                time.sleep(within)
                new &= writes(folder)
            if new or within is None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                left = [path.name for place in new for path in Path(place).glob("*")]
                return ", ".join(left) or ("nothing yet" if new else "")
        time.sleep(0.005 if within is None else 0.0002)
    return None


def content(folder: Path) -> dict[str, object]:
    """What a run has left, without what tells of time, memory and place."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(file)]
    results = json.loads((folder / "results.json").read_text())
    for key in ("wall_seconds", "best_checkpoint", "command"):
        del results[key]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["runs_dir"]
    found = {"metrics.csv": rows, "results.json": results, "config.yaml": config}
    for name in ("best", "last"):
        checkpoint = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
        found[f"{name}.ckpt"] = {
            key: checkpoint[key]
            for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")
        }
    files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    found["files"] = sorted(str(path) for path in files)
    return found


def same(one: object, two: object) -> bool:
    """Whether two nested values are equal, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def main() -> int:
    """Kill, go on, compare; returns the number of runs that differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--writing", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    place = Path(tempfile.mkdtemp(prefix="kill_and_resume_"))
    whole, seconds = [], []
    for number, (settings, _) in enumerate(SETTINGS):
        begin = time.monotonic()
        os.waitpid(start(place / f"whole{number}", settings, place / "log"), 0)
        seconds.append(time.monotonic() - begin)
        whole.append(content(place / f"whole{number}/shapes/x"))
    kills, different, number = 0, 0, 0
    while kills < options.kills:
        setting = number % len(SETTINGS)
        runs, stops = place / f"run{number}", []
        folder = runs / "shapes/x"
        while True:
            child = start(runs, SETTINGS[setting][0], place / "log")
            if kills + len(stops) >= options.kills or len(stops) == 3:
                os.waitpid(child, 0)
                break
            writing = kills + len(stops) < options.writing
            within = rng.uniform(0, 0.01) if writing else None
            stop = kill(child, folder, rng.uniform(0, 0.9) * seconds[setting], within)
            if stop is None:
                break
            stops.append(stop)
        kills += len(stops)
        found = content(folder)
        wrong = [key for key in found if not same(found[key], whole[setting][key])]
        different += bool(wrong)
        print(
            f"{SETTINGS[setting][1]}: killed {len(stops)} times, in writing "
            f"{[stop for stop in stops if stop] or 'nothing'}; differs in {wrong or 'nothing'}",
            flush=True,
        )
        number += 1
    print(f"{kills} kills of {number} runs; {different} differ from a run that was never stopped")
    if not different:
        shutil.rmtree(place)
    else:
        print(f"They are kept in {place}")
    return different


if __name__ == "__main__":
    sys.exit(main())
