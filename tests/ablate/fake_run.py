"""Stands for `python -m deeplab_lit.VERB …` in tests of the runner, and starts in no time.

Leaves what those leave; notes its command line, and whether it goes on from a checkpoint. A run
with --fail fails, one with --slow waits until it is interrupted and then leaves a checkpoint,
unless it goes on from one.
"""

import json
import signal
import sys
import time
from pathlib import Path

verb, args = sys.argv[2].rpartition(".")[2], sys.argv[3:]
options = dict(arg.removeprefix("--").partition("=")[::2] for arg in args)
experiment = Path(options["runs_dir"], options["experiment"])
folder = experiment / options["run"]
last = folder / "checkpoints/last.ckpt"
goes_on = options.get("ckpt_path") == "last" and last.exists()
with (experiment / "calls.txt").open("a") as calls:
    calls.write(f"{verb} {options['run']} {'last' * goes_on}\n")
if "fail" in options:
    print("error: the loss is nan", file=sys.stderr)
    raise SystemExit(2)
folder.mkdir(exist_ok=verb == "fit")


def leave(number, frame):
    last.parent.mkdir()
    last.touch()
    raise SystemExit(128 + number)


if "slow" in options and not goes_on:
    signal.signal(signal.SIGINT, leave)
    (folder / "ready").touch()
    time.sleep(600)
(folder / "results.json").write_text(json.dumps({"finished": True}))
