import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.distributed.run import get_args_parser

from deeplab_lit import fit
from deeplab_lit.cli.checks import check_trainer
from deeplab_lit.cli.defaults import SHAPES
from deeplab_lit.cli.parser import UsageError
from deeplab_lit.cli.processes import (
    ProcessesError,
    check_same,
    check_world,
    environment_of,
    flat,
    settle_rank,
)
from deeplab_lit.cli.run import build_parser, command_line, parse_run
from deeplab_lit.training.resumption import SaveOnSignal

SBATCH, README = (
    SHAPES.parent / "slurm.sbatch",
    SHAPES.parents[1] / "deeplab_lit/training/README.md",
)
TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "0"}
JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "mine", "SLURM_NTASKS": "8"}
STEP = JOB | {"SLURM_NTASKS_PER_NODE": "4", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}
TIMED = ("train/images_per_second", "train/resident_memory_gib")


@pytest.fixture
def variables(monkeypatch):
    """Sets environment variables, in place of those that launchers set."""

    def set_variables(values):
        for name in list(os.environ):
            if re.match("SLURM_|TORCHELASTIC_|(LOCAL_|GROUP_|NODE_)?RANK|(LOCAL_)?WORLD_", name):
                monkeypatch.delenv(name)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_variables


def trainer_of(nodes, devices):
    strategy = SimpleNamespace(cluster_environment=LightningEnvironment())
    return SimpleNamespace(num_nodes=nodes, num_devices=devices, strategy=strategy)


@pytest.mark.parametrize(
    ("started", "nodes", "devices", "sentence"),
    [
        (
            TORCHRUN,
            1,
            4,
            "torchrun has started 8 processes .*set --trainer.num_nodes 2 .*devices 4",
        ),
        (TORCHRUN, 1, 1, "num_nodes 1 × --trainer.devices 1 expects 1"),
        (STEP, 2, 1, "srun has started 8 tasks .*set --trainer.num_nodes 2 --trainer.devices 4"),
        (
            JOB | {"SLURM_NTASKS": "8", "SLURM_STEP_ID": "0", "SLURM_NNODES": "2"},
            1,
            1,
            "set --trainer.num_nodes 2 --trainer.devices 4; or give the job as many tasks",
        ),
        (
            JOB | {"SLURM_NTASKS": "1"},  # several GPUs, and no srun
            1,
            4,
            "this SLURM job has 1 task .*start them from here: SLURM_JOB_NAME=interactive",
        ),
        ({}, 2, 4, "num_nodes is 2, but this process is alone: start the command on each node"),
        (
            {"RANK": "0", "WORLD_SIZE": "2"},
            1,
            1,
            r"several processes \(RANK=0, WORLD_SIZE=2",
        ),
    ],
)
def test_processes_that_would_train_apart_or_wait_for_ever_are_refused(
    variables, started, nodes, devices, sentence
):
    variables(started)
    with pytest.raises(ProcessesError, match=sentence):
        check_world(trainer_of(nodes, devices))


@pytest.mark.parametrize(
    ("started", "nodes", "devices"),
    [
        (TORCHRUN, 2, 4),
        (STEP, 2, 4),
        (STEP | TORCHRUN, 2, 4),  # torchrun on each node of a job
        ({"NODE_RANK": "1"}, 2, 4),
        ({}, 1, 4),
        ({"WORLD_SIZE": "2"}, 1, 1),  # of no launcher
        ({"RANK": "0", "WORLD_SIZE": "1"}, 1, 1),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "0"}, 1, 2),  # Lightning
        (JOB | {"SLURM_NTASKS": "1"}, 1, 1),
        (JOB | {"SLURM_JOB_NAME": "interactive"}, 1, 2),
    ],
)
def test_processes_that_fit_the_options_are_let_through(variables, started, nodes, devices):
    variables(started)
    check_world(trainer_of(nodes, devices))


@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}])
def test_in_a_job_of_several_tasks_srun_is_asked_for(variables, step):
    variables(JOB | step)
    with pytest.raises(ProcessesError, match=r"8 tasks .*put srun in front of the command"):
        environment_of([])


@pytest.mark.parametrize(
    "started",
    [
        {},
        JOB | {"SLURM_JOB_NAME": "bash"},
        JOB | {"SLURM_JOB_NAME": "interactive"},
        JOB | TORCHRUN,
    ],
    ids=["no job", "srun --pty bash", "salloc", "torchrun"],
)
def test_a_shell_in_an_allocation_is_no_task_of_its_job(variables, started):
    variables(started)
    assert environment_of([]) == []


def test_lightning_leaves_requeueing_to_the_job(variables):
    """It would save into the current folder, from within a signal's handler."""
    variables(STEP)
    (environment,) = environment_of([])
    assert not environment.auto_requeue
    assert environment.world_size() == 8
    assert environment_of([LightningEnvironment()]) == []


@pytest.mark.parametrize(("started", "rank"), [({"NODE_RANK": "1"}, 1), ({"NODE_RANK": "0"}, 0)])
def test_a_second_node_started_by_hand_is_not_the_first(variables, monkeypatch, started, rank):
    variables(started)
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    settle_rank()
    assert rank_zero_only.rank == rank


@pytest.mark.parametrize("variable", ["NODE_RANK", "RANK"])
def test_a_further_process_that_would_train_alone_and_in_silence_is_refused(
    variables, monkeypatch, variable
):
    """Left over from a launcher, or set by one that Lightning does not know."""
    variables({variable: "1"})
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as `settle_rank` and Lightning set it
    with pytest.raises(ProcessesError, match=f"{variable}=1.*or unset these variables"):
        check_world(trainer_of(1, 1))
    check_world(trainer_of(1, 2))


def test_differences_between_processes_are_named_with_their_hosts():
    first = {"host": "a", "checkpoint": "last.ckpt with SHA-256 01234567…", "--model.lr": "0.1"}
    check_same([first, first | {"host": "b"}])
    other = first | {"host": "b", "checkpoint": "none: begins anew"}
    sentence = (
        r"checkpoint: last.ckpt .* on process 0 \(a\), none: begins anew on process 2 \(b\)\. "
        r"Start all .* on a shared disk$"
    )
    with pytest.raises(ProcessesError, match=sentence):
        check_same([first, first, other])
    with pytest.raises(ProcessesError, match=r"--model.lr: 0.1 on .*, 0.2 on process 1 \(b\)"):
        check_same([first, first | {"host": "b", "--model.lr": "0.2"}])


def test_options_of_one_machine_may_differ():
    options = Namespace({"model.lr": 0.1, "model.weights": "/a/x.pth", "loader.num_workers": 3})
    assert flat(vars(options)) == {"--model.lr": "0.1"}


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp_cpu_offload", "deepspeed_stage_2"])
def test_strategies_that_cut_the_network_are_refused_with_what_to_use(strategy):
    named = {"trainer.strategy": strategy}
    by_class = {"trainer.strategy.class_path": "lightning.pytorch.strategies.FSDPStrategy"}
    for options in (named, by_class):
        with pytest.raises(UsageError, match=r"cuts the network .* Use --trainer.strategy ddp"):
            check_trainer(Namespace(options))


def test_the_command_line_for_torchrun_that_the_readme_shows_is_understood():
    """Before `--` it would take `--run` for its own `--run-path`."""
    (line,) = re.findall(r"^torchrun (.*)", README.read_text("utf-8"), re.MULTILINE)
    torchrun = get_args_parser().parse_args(shlex.split(line))
    nodes, devices = torchrun.nnodes, torchrun.nproc_per_node
    assert torchrun.training_script == "deeplab_lit.fit"
    argv = command_line(torchrun.training_script_args)
    options = parse_run(build_parser("fit", "", ""), "fit", argv, None)
    assert (str(options.trainer.num_nodes), str(options.trainer.devices)) == (nodes, devices)
    assert (options.run, options.ckpt_path) == ("NAME", "last")


def test_two_dashes_alone_are_no_option():
    words = ["--config=a.yaml", "--run", "x"]
    assert command_line([words[0], "--", *words[1:]]) == words


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return str(place.getsockname()[1])


@pytest.fixture
def two_processes(variables, tmp_path):
    """Runs `fit` as two nodes of one process each: (exit codes, what each has printed).

    The processes are forks, with the variables that a launcher sets: it starts nothing else.
    """

    def start(rank, environment, args, patch):
        if child := os.fork():
            return child
        code = 1
        try:
            sys.stdout = sys.stderr = (tmp_path / f"{rank}.log").open("w")
            variables(environment)
            rank_zero_only.rank = rank  # as Lightning sets it when it is imported
            patch(rank)
            fit.main(args)
            code = 0
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def run(environments, args, patch=lambda rank: None):
        children = [start(i, env, args, patch) for i, env in enumerate(environments)]
        limit, codes = time.monotonic() + 120, {}
        while len(codes) < 2:
            for child in set(children) - codes.keys():
                if time.monotonic() > limit:
                    os.kill(child, signal.SIGKILL)
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        logs = [tmp_path / f"{rank}.log" for rank in (0, 1)]
        texts = [log.read_text() for log in logs]
        for log in logs:
            log.unlink()
        return [codes[child] for child in children], texts

    return run


def at_step(number, rank, which, sent):
    """Lets one process send itself a signal when so many steps are done."""
    before = SaveOnSignal.on_train_batch_end

    def after(self, trainer, *args):
        before(self, trainer, *args)
        if (trainer.global_step, rank) == (number, which):
            os.kill(os.getpid(), sent)

    SaveOnSignal.on_train_batch_end = after


def left(folder):
    """What a run has left: its weights and optimizer, its rows, its scores."""
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    rows = [
        {name: value for name, value in zip(*lines, strict=True) if name not in TIMED}
        for text in [(folder / "metrics.csv").read_text().splitlines()]
        for lines in ((text[0].split(","), line.split(",")) for line in text[1:])
    ]
    final = json.loads((folder / "results.json").read_text())["final"]
    state = last["state_dict"], last["optimizer_states"][0]["state"]
    tensors = [*state[0].values(), *(each["momentum_buffer"] for each in state[1].values())]
    return tensors, rows, final


def test_a_node_that_is_killed_ends_the_other_and_the_run_goes_on_as_if_it_had_not_been(
    two_processes, tmp_path, tiny_args
):
    def torchrun():
        shared = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "LOCAL_RANK": "0"}
        return [shared | {"RANK": str(rank), "GROUP_RANK": str(rank)} for rank in (0, 1)]

    options = {"--trainer.num_nodes": "2", "--trainer.devices": "1", "--ckpt_path": "last"}
    options |= {"--trainer.log_every_n_steps": "1", "--trainer.num_sanity_val_steps": "0"}
    whole = tiny_args(tmp_path, **options, **{"--run": "whole"})
    codes, (first, second) = two_processes(torchrun(), whole)
    assert codes == [0, 0], first + second
    assert first.count("Best mIoU") == 1
    assert second == ""
    folder = tmp_path / "shapes/whole"
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "metrics.csv"),
        *("predictions.png", "report.html", "results.json"),
    }
    assert json.loads((folder / "results.json").read_text())["processes"] == 2

    killed = tiny_args(tmp_path, **options, **{"--run": "killed"})
    codes, (first, _) = two_processes(
        torchrun(), killed, lambda rank: at_step(3, rank, 1, signal.SIGKILL)
    )
    assert codes == [2, -signal.SIGKILL]
    assert "error: another process of this training was killed or has failed" in first
    codes, texts = two_processes(torchrun(), killed)
    assert codes == [0, 0], texts
    assert "last.ckpt (step 2)" in texts[0]
    one, two = (left(tmp_path / "shapes" / name) for name in ("whole", "killed"))
    assert all(map(torch.equal, one[0], two[0]))
    assert one[1:] == two[1:]
    assert len(one[1]) == 4


def test_a_slurm_job_whose_time_is_up_saves_once_and_goes_on(two_processes, tmp_path, tiny_args):
    """SIGUSR1 comes to one process only here; and what another job has left is not taken up."""

    def srun():
        shared = JOB | {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2"}
        shared |= {"SLURM_STEP_ID": "0", "SLURM_LOCALID": "0"}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        return [shared | {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in (0, 1)]

    options = {"--trainer.num_nodes": "2", "--trainer.devices": "1", "--ckpt_path": "last"}
    options |= {"--trainer.max_steps": "12", "--trainer.val_check_interval": "12", "--run": "x"}
    options |= {"--trainer.num_sanity_val_steps": "0"}
    args = tiny_args(tmp_path / "runs", **options)
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        (tmp_path / "hpc_ckpt_1.ckpt").write_text("another job's")
        codes, texts = two_processes(srun(), args, lambda rank: at_step(7, rank, 1, signal.SIGUSR1))
        assert codes == [128 + signal.SIGUSR1] * 2, texts
        assert "Saved step 10" in texts[0]
        assert [path.name for path in tmp_path.glob("hpc*")] == ["hpc_ckpt_1.ckpt"]
        codes, texts = two_processes(srun(), args)
    finally:
        os.chdir(here)
    assert codes == [0, 0], texts
    assert "last.ckpt (step 10)" in texts[0]
    assert [path.name for path in (tmp_path / "runs/shapes").iterdir()] == ["x"]


@pytest.fixture
def run_job(tmp_path):
    """Runs the job file with an srun that ends as told: (exit code, srun's words, scontrol's)."""

    def run(code):
        programs = {
            "srun": f'printf "%s\\n" "$@" > words; exit {code}',
            "scontrol": 'echo "$@" > asked',
        }
        for name, text in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        job = {"SLURM_JOB_ID": "4711", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4"}
        job |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        command = [shutil.which("bash"), SBATCH, "--data", "VOC"]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | job)
        asked = tmp_path / "asked"
        words = (tmp_path / "words").read_text().splitlines()
        return done.returncode, words, asked.read_text() if asked.exists() else ""

    return run


@pytest.mark.parametrize(("code", "asked"), [(138, "requeue 4711\n"), (0, ""), (143, ""), (2, "")])
def test_the_job_file_queues_itself_again_only_where_its_time_was_up(run_job, code, asked):
    assert run_job(code)[::2] == (code, asked)


def test_fit_understands_the_job_file(run_job):
    words = run_job(0)[1]
    assert words[:3] == ["python", "-m", "deeplab_lit.fit"]
    options = parse_run(build_parser("fit", "", ""), "fit", command_line(words[3:]), None)
    assert (options.trainer.num_nodes, str(options.trainer.devices)) == (2, "4")
    assert (options.run, options.ckpt_path) == ("4711", "last")
    assert options.data.class_path.endswith(".VOC")


def test_the_job_file_asks_for_the_signal_that_fit_heeds():
    assert re.search(r"^#SBATCH .*--signal=USR1@\d+ --requeue", SBATCH.read_text(), re.MULTILINE)
