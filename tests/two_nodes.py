"""Train on two nodes, here two torchruns on the loopback address; kill one; go on; compare.

    python -m tests.two_nodes [--kill 0 1]

By hand only: a minute or two. Trainings with the same options and two processes, on CPUs (gloo): on
one node; on two; and on two of which one, torchrun and all, is killed with SIGKILL, after which the
same commands go on. Both checkpoints, metrics.csv and results.json must be equal to the bit. Then
the checkpoint is validated on two nodes and by one process: the scores must be equal.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import TINY
from tests.kill_and_resume import content, same

STEPS = {
    "--trainer.max_steps": "60",
    "--trainer.val_check_interval": "10",
    "--trainer.log_every_n_steps": "1",
}
MOST = 120  # seconds until the other node must have ended


def kill_node(torchrun: subprocess.Popen) -> None:
    """Kill a torchrun and its processes, which are in sessions of their own (Linux)."""
    lists = Path("/proc").glob(f"{torchrun.pid}/task/*/children")
    children = [int(number) for file in lists for number in file.read_text().split()]
    for number in (torchrun.pid, *children):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@contextmanager
def started(
    nodes: int, module: str, options: dict[str, str], place: Path
) -> Iterator[list[subprocess.Popen]]:
    """Start a command on so many nodes, two processes together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    each = 2 // nodes
    world = {"--trainer.num_nodes": str(nodes), "--trainer.devices": str(each)}
    args = [f"{key}={value}" for key, value in (options | world).items()]
    running = []
    for rank in range(nodes):
        command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}"]
        command += [f"--nproc_per_node={each}", f"--node_rank={rank}", "--master_addr=127.0.0.1"]
        command += [f"--master_port={port}", "-m", f"deeplab_lit.{module}", "--", *args]
        with (place / f"node{rank}.log").open("a") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
    try:
        yield running
    finally:
        for node in running:
            if node.poll() is None:
                kill_node(node)


def train(nodes: int, name: str, place: Path) -> dict[str, object]:
    """Train to the end, from where the run stands; return what it has left."""
    options = TINY | STEPS | {"--runs_dir": str(place), "--run": name, "--ckpt_path": "last"}
    with started(nodes, "fit", options, place) as running:
        codes = [node.wait() for node in running]
    assert codes == [0] * nodes, f"exit codes {codes}: see {place}/node*.log"
    return content(place / "shapes" / name)


def kill_one(which: int, name: str, place: Path) -> float:
    """Kill one of two nodes once there is a checkpoint; return how long the other outlives it."""
    options = TINY | STEPS | {"--runs_dir": str(place), "--run": name, "--ckpt_path": "last"}
    with started(2, "fit", options, place) as running:
        while not (place / "shapes" / name / "checkpoints/last.ckpt").is_file():
            assert all(node.poll() is None for node in running), f"see {place}/node*.log"
            time.sleep(0.05)
        kill_node(running[which])
        begin = time.monotonic()
        code = running[1 - which].wait(MOST)
    assert code != 0, "the other node has ended as if all were well"
    said = (place / f"node{1 - which}.log").read_text()
    assert "error: another process of this training was killed" in said, said
    return time.monotonic() - begin


def scores(nodes: int, name: str, place: Path) -> dict[str, object]:
    """Return the scores of a run's best checkpoint, validated on so many nodes; 0: one process."""
    options = {"--ckpt_path": str(place / "shapes" / name / "checkpoints/best.ckpt")}
    options |= {"--runs_dir": str(place), "--run": f"validated{nodes}"}
    if nodes:
        with started(nodes, "validate", options, place) as running:
            assert [node.wait() for node in running] == [0] * nodes
    else:
        args = [f"{key}={value}" for key, value in options.items()]
        command = [sys.executable, "-m", "deeplab_lit.validate", "--trainer.devices=1", *args]
        subprocess.run(command, check=True, capture_output=True)
    file = place / f"shapes/validated{nodes}/results.json"
    return json.loads(file.read_text())["final"]


def main() -> int:
    """Train, kill, go on, validate, compare; returns the number of comparisons that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kill", type=int, nargs="+", choices=(0, 1), default=[0, 1])
    kills = parser.parse_args().kill
    place = Path(tempfile.mkdtemp(prefix="two_nodes_"))
    one, two = train(1, "one", place), train(2, "two", place)
    # config.yaml says on how many nodes
    wrong = [key for key in one if key != "config.yaml" and not same(one[key], two[key])]
    print(f"one node and two nodes differ in {wrong or 'nothing'}", flush=True)
    failed = bool(wrong)
    for which in kills:
        seconds = kill_one(which, f"killed{which}", place)
        ended = train(2, f"killed{which}", place)
        wrong = [key for key in two if not same(ended[key], two[key])]
        failed += bool(wrong)
        print(
            f"node {which} killed: the other ended after {seconds:.1f} s and said so; the run that "
            f"went on differs in {wrong or 'nothing'}",
            flush=True,
        )
    here, there = scores(0, "two", place), scores(2, "two", place)
    failed += here != there
    print(f"mIoU of one process {here['miou']:.6f}, of two nodes {there['miou']:.6f}")
    if failed:
        print(f"All is kept in {place}")
    else:
        shutil.rmtree(place)
    return failed


if __name__ == "__main__":
    sys.exit(main())
