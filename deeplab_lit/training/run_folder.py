"""A run is a folder: runs/<experiment>/<run>/, never used twice."""

import json
import shutil
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit.errors import UserError
from deeplab_lit.whole import whole_file

CHECKPOINT_HELP = 'Checkpoint that fit wrote; "last": the best of the newest run in runs/.'


class RunFolderError(UserError, ValueError):
    """The folder of a run cannot be used; says which, why and what to do."""


def new_run_folder(runs_dir: Path, experiment: str, name: str | None, suffix: str = "") -> Path:
    """Where a new run goes; nothing is made yet.

    Args:
        runs_dir: the folder of all experiments.
        experiment: name of the experiment.
        name: name of the run. null: the time, to the second.
        suffix: put behind the time.

    Raises:
        RunFolderError: a run of that name exists.
    """
    folder = runs_dir / experiment / (name or f"{datetime.now():%Y%m%d-%H%M%S}{suffix}")
    if rank_zero_only.rank:  # the first process has chosen already, and its choice counts
        return folder
    if name and folder.exists():
        raise RunFolderError(
            f"{folder} exists already: choose another --run, or go on with --ckpt_path last"
        )
    number = 2
    while folder.exists():
        folder = folder.with_name(f"{folder.name.split('_')[0]}_{number}")
        number += 1
    return folder


def last_checkpoint(runs_dir: Path, experiment: str, name: str | None) -> Path:
    """The newest last.ckpt of an experiment ("*": of any), or that of the named run.

    Raises:
        RunFolderError: there is none.
    """
    pattern = f"{experiment}/{name or '*'}/checkpoints/last.ckpt"
    found = sorted(runs_dir.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunFolderError(f"--ckpt_path last: there is no {runs_dir / pattern} to go on from")
    return found[-1]


def named_checkpoint(ckpt_path: str, runs_dir: str = "runs", experiment: str | None = None) -> str:
    """Return the file that a command's `--ckpt_path` names, and say which where it says `last`.

    Args:
        ckpt_path: a file; or "last", the best.ckpt of the newest run, its last.ckpt where it has
            none. A file of that name is "./last".
        runs_dir: the folder of all experiments.
        experiment: of the run. None: any.

    Raises:
        RunFolderError: there is no run yet.
    """
    if ckpt_path != "last":
        return ckpt_path
    below = f"{escape(experiment) if experiment else '*'}/*/checkpoints"
    found = [f for name in ("last", "best") for f in Path(runs_dir).glob(f"{below}/{name}.ckpt")]
    if not found:
        raise RunFolderError(
            f"--ckpt_path last: there is no checkpoint in {Path(runs_dir) / below}: train first, "
            "or name the checkpoint's file"
        )
    newest = max(found, key=lambda path: path.stat().st_mtime)
    best = newest.with_name("best.ckpt")
    chosen = best if best.is_file() else newest
    if not rank_zero_only.rank:
        print(f"Checkpoint  {chosen}, of the newest run", flush=True)
    return str(chosen)


def claim(folder: Path, bytes_needed: int, *, exist_ok: bool = False) -> None:
    """Make the folder, once it is certain that the run can be written there.

    Args:
        folder: of the run.
        bytes_needed: what checkpoints will take.
        exist_ok: the run goes on in a folder of its own.

    Raises:
        RunFolderError: it cannot be made or written to, another run has just taken it, or the disk
            is too full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        if isinstance(error, FileExistsError) and folder.is_dir():
            raise RunFolderError(
                f"{folder}: another run has just taken this folder; start again, or give each run "
                "a name with --run"
            ) from error
        raise RunFolderError(
            f"{folder} cannot be written ({error.strerror or error}): choose another --runs_dir"
        ) from error
    if free < bytes_needed:
        if not exist_ok:
            folder.rmdir()
        raise RunFolderError(
            f"{folder}: {free / 1e6:,.0f} MB free on that disk, but the run's checkpoints take "
            f"{bytes_needed / 1e6:,.0f} MB: make room, or choose another --runs_dir"
        )


def claim_results(folder: Path, settings: dict[str, Any]) -> None:
    """Make a folder for a command's results, or go on in one begun with the same settings.

    Args:
        folder: given by the user.
        settings: what decides about the results; kept in settings.json.

    Raises:
        RunFolderError: it holds something else, or cannot be made.
    """
    record = folder / "settings.json"
    settings = json.loads(json.dumps(settings))  # tuples are lists in a file
    if record.is_file():
        try:
            before = dict(json.loads(record.read_text("utf-8")))
        except ValueError as error:
            raise RunFolderError(f"{record} is damaged: choose another folder") from error
        changed = [k for k in before | settings if before.get(k) != settings.get(k)]
        if changed:
            raise RunFolderError(
                f"{folder} holds results of other settings ({', '.join(changed)} in {record}): "
                "choose another folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder} exists and holds something else: choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be made ({error.strerror}): choose another one"
        ) from error
    with whole_file(record) as place:
        place.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
