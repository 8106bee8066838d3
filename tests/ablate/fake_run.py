"""Stands for `python -m deeplab_lit.VERB …` in tests of the runner, and starts in no time.

Leaves what those leave; notes its command line. A run with --fail fails, one with --slow waits
until it is interrupted and then leaves a checkpoint, unless it goes on from one.
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
with (experiment / "calls.txt").open("a") as calls:
    calls.write(f"{verb} {options['run']} {options.get('ckpt_path', '')}\n")
if "fail" in options:
    print("error: the loss is nan", file=sys.stderr)
    raise SystemExit(2)
goes_on = options.get("ckpt_path") == "last"
folder.mkdir(exist_ok=goes_on)


def leave(number, frame):
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.ckpt").touch()
    raise SystemExit(128 + number)


if "slow" in options and not goes_on:
    signal.signal(signal.SIGINT, leave)
    (folder / "ready").touch()
    time.sleep(60)
(folder / "results.json").write_text(json.dumps({"finished": True}))
