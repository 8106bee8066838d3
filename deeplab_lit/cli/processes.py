"""Several processes of one run: who has started them, and whether all were given the same.

Lightning starts the processes of one machine itself. On several machines torchrun, srun or the
user start one for each, and each reads its own command line and its own disk: what fits together
no further is refused here, before anything is written or trained.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit import __version__
from deeplab_lit.errors import UserError
from deeplab_lit.loading import DataModule
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.text import plural

COMPARED = ("seed_everything", "model", "loader", "eval", "crf", "trainer")  # sections of options
LOCAL = ("num_workers", "weights", "cache_dir", "default_root_dir", "logger")  # may differ
PACKAGES = ("torch", "lightning")
MOST = 3  # differences that are shown
# variables by which launchers number the processes
COUNTING = ("NODE_RANK", "RANK", "LOCAL_RANK", "SLURM_PROCID", "WORLD_SIZE")


class ProcessesError(UserError):
    """Processes cannot work together; says which options or variables, and what to do."""


def settle_rank() -> None:
    """Keep the first process of a further node from taking itself for the first of all.

    Lightning asks RANK, LOCAL_RANK and SLURM_PROCID when it is imported. Where nodes are started by
    hand there is NODE_RANK alone, which it asks when the trainer is made: after the run's folder
    has been chosen.
    """
    if "RANK" not in os.environ and os.environ.get("NODE_RANK", "0") not in ("", "0"):
        rank_zero_only.rank = rank_zero_only.rank or 1  # type: ignore[attr-defined]


def environment_of(plugins: Sequence[Any]) -> list[SLURMEnvironment]:
    """Return the environment of a SLURM job, to be a plugin of the trainer; none elsewhere.

    It is Lightning's, but leaves SIGUSR1 to `SaveOnSignal`: Lightning would save from within the
    signal's handler, into the current folder, where any training of a later job would take it up.

    Args:
        plugins: of the user, who may have chosen an environment.

    Raises:
        ProcessesError: the job has several tasks, and this process is none of them.
    """
    is_chosen = any(isinstance(plugin, ClusterEnvironment) for plugin in plugins)
    if is_chosen or TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    tasks = os.environ["SLURM_NTASKS"]
    # salloc may give a shell that is a step of its own, of one task
    is_alone = "SLURM_STEP_ID" not in os.environ or os.environ.get("SLURM_STEP_NUM_TASKS") == "1"
    if tasks != "1" and is_alone:
        raise ProcessesError(
            f"this SLURM job has {tasks} tasks (SLURM_NTASKS), but srun has not started this "
            "process, so it would wait for the others for ever: put srun in front of the command. "
            "To run it in this shell alone: SLURM_JOB_NAME=interactive in front of it"
        )
    return [SLURMEnvironment(auto_requeue=False)]


def check_world(trainer: Trainer) -> None:
    """Refuse a trainer that expects other processes than were started.

    Lightning does so late, or not at all: with one device of one node each process would train on
    its own, all into the same folder.

    Raises:
        ProcessesError: says how many were started, and which options expect them.
    """
    nodes, devices = trainer.num_nodes, trainer.num_devices
    asked = f"--trainer.num_nodes {nodes} × --trainer.devices {devices}"
    variables, cure = os.environ, ""
    if TorchElasticEnvironment.detect():
        started, on_each = int(variables["WORLD_SIZE"]), int(variables["LOCAL_WORLD_SIZE"])
        words = f"torchrun has started {started} processes (--nnodes × --nproc_per_node)"
    elif SLURMEnvironment.detect():
        started = int(variables["SLURM_NTASKS"])
        on_each = started // int(variables.get("SLURM_NNODES", 1))
        on_each = int(variables.get("SLURM_NTASKS_PER_NODE", on_each))
        who = "srun has started" if "SLURM_STEP_ID" in variables else "this SLURM job has"
        words = f"{who} {plural(started, 'task')} (--nodes × --ntasks-per-node)"
        cure = "; or give the job as many tasks as processes"
        if started == nodes == 1:
            cure += "; or start them from here: SLURM_JOB_NAME=interactive in front of the command"
    else:
        environment = getattr(trainer.strategy, "cluster_environment", None)
        by_hand = {"NODE_RANK", "GROUP_RANK"} & variables.keys()
        if nodes > 1 and isinstance(environment, LightningEnvironment) and not by_hand:
            raise ProcessesError(
                f"--trainer.num_nodes is {nodes}, but this process is alone: start the command on "
                "each node, with torchrun or srun (deeplab_lit/training/README.md); or set "
                "--trainer.num_nodes 1"
            )
        if nodes * devices == 1:
            _refuse_one_of_several()
        return
    if started != nodes * devices:
        raise ProcessesError(
            f"{words}, but {asked} expects {nodes * devices}: set "
            f"--trainer.num_nodes {max(started // on_each, 1)} --trainer.devices {on_each}{cure}"
        )


def _refuse_one_of_several() -> None:
    """Refuse a training of one process where a launcher of another kind counts several.

    Each would train on its own; and any but the first would say nothing.
    """
    is_first = not rank_zero_only.rank  # type: ignore[attr-defined] # set when it is imported
    if is_first and ("RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1"):
        return
    counting = [f"{name}={os.environ[name]}" for name in COUNTING if name in os.environ]
    raise ProcessesError(
        f"this is one of several processes ({', '.join(counting)}), but the options expect one: "
        "start the command with torchrun or srun (deeplab_lit/training/README.md); or unset these "
        "variables, to train by this process alone"
    )


class SameOnAllProcesses(Callback):
    """Refuse to begin where processes of one run were given different things.

    A network is sent from the first process to all, but each reads its own options, data and
    optimizer's state: they would train different networks, or wait for each other for ever.

    Args:
        options: of the command line.
        run: name of the run; None where each process names it after its own time.
        checkpoint: that each reads; None: none.
    """

    def __init__(self, options: Namespace, run: str | None, checkpoint: str | None) -> None:
        self.options = {k: v for k, v in vars(options.clone()).items() if k in COMPARED}
        self.run, self.checkpoint = run, checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare, once the processes have found each other.

        Raises:
            ProcessesError: on every process; says what differs.
        """
        if trainer.world_size == 1:
            return
        mine = {"host": platform.node(), **self._about(trainer)}
        everyone: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(everyone, mine)
        check_same(everyone)

    def _about(self, trainer: Trainer) -> dict[str, str]:
        """Return all that must be equal, as texts."""
        about = {"run": str(self.run), "checkpoint": "none: begins anew"}
        if self.checkpoint is not None:
            file = Path(self.checkpoint)
            about["checkpoint"] = f"{file.name} with SHA-256 {sha256_of(file)[:8]}…"
        data: Any = trainer.datamodule  # type: ignore[attr-defined] # set when a run begins
        if isinstance(data, DataModule):
            about["data"] = data.in_words()
        about |= {f"version of {name}": version(name) for name in PACKAGES}
        return about | {"version of deeplab_lit": __version__} | flat(self.options)


def flat(options: Mapping[str, Any], place: str = "") -> dict[str, str]:
    """Return nested options as full name → text, without those that belong to one machine."""
    texts: dict[str, str] = {}
    for name in options.keys() - set(LOCAL):
        value = options[name]
        if isinstance(value, Namespace):
            texts |= flat(vars(value), f"{place}{name}.")
        else:
            texts[f"--{place}{name}"] = str(value)
    return dict(sorted(texts.items()))


def check_same(everyone: Sequence[Mapping[str, str]]) -> None:
    """Refuse differences between processes.

    Args:
        everyone: what each process was given, in their order; "host" may differ.

    Raises:
        ProcessesError: there is one.
    """
    first = everyone[0]
    names = dict.fromkeys(name for each in everyone for name in each if name != "host")
    differing = [name for name in names if any(e.get(name) != first.get(name) for e in everyone)]
    if not differing:
        return
    shown = []
    for name in differing[:MOST]:
        number = next(i for i, e in enumerate(everyone) if e.get(name) != first.get(name))
        other = everyone[number]
        shown.append(
            f"{name}: {first.get(name)} on process 0 ({first['host']}), {other.get(name)} on "
            f"process {number} ({other['host']})"
        )
    hint = "Start all by the same command, with the same code and data"
    if {"run", "checkpoint"} & set(differing):
        hint += "; a run that goes on must find its --runs_dir on every node, on a shared disk"
    raise ProcessesError(
        f"the processes of this run were given different things. {'; '.join(shown)}. {hint}"
    )
