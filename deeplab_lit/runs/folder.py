"""The folder of a run, runs/<experiment>/<run>/, never used twice, and which one `last` is.

Folders that a user names for a command's results: one folder, one kind of results.
"""

import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from deeplab_lit.atomic import PREFIX, NoLocksError, atomic_write, lock
from deeplab_lit.errors import UserError

CHECKPOINT_HELP = (
    'Checkpoint that fit wrote; "last": the best of the newest run in runs/; or published weights '
    "by name, like kazuto1011/voc12 (convert --list)."
)


class RunFolderError(UserError, ValueError):
    """The folder of a run cannot be used; says which, why and what to do."""


class NoCheckpointError(RunFolderError):
    """There is no run, or none with a checkpoint, to go on with."""


def check_name(option: str, name: str) -> str:
    """Return the name of a run or experiment, if it is a folder below the one it belongs into.

    Raises:
        RunFolderError: it leads elsewhere, or no folder can be called so.
    """
    path = Path(name)
    if len(path.parts) != 1 or path.is_absolute() or name == ".." or not name.isprintable():
        raise RunFolderError(
            f"{option} {name!r}: a run lies below --runs_dir, so this must be the name of one "
            "folder there, without / or ..; another place is chosen with --runs_dir"
        )
    return name


def new_run_folder(runs_dir: Path, experiment: str, name: str | None, suffix: str = "") -> Path:
    """Return the folder where a new run goes; nothing is made yet.

    Args:
        runs_dir: the folder of all experiments.
        experiment: name of the experiment.
        name: name of the run. None: the time, to the second.
        suffix: put behind the time.

    Raises:
        RunFolderError: a run of that name exists, or the names lead out of the folder.
    """
    check_name("--experiment", experiment)
    if name:
        check_name("--run", name)
    folder = runs_dir / experiment / (name or f"{datetime.now():%Y%m%d-%H%M%S}{suffix}")
    if not _is_first_process():  # the first one has chosen already, and its choice counts
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
    """Return the newest last.ckpt of an experiment ("*": of any), or that of the named run.

    Raises:
        NoCheckpointError: there is none.
        RunFolderError: the names lead out of the folder.
    """
    newest = _newest(runs_dir, experiment, name, "checkpoints/last.ckpt")
    if newest is None:
        place = runs_dir / experiment / (name or "*") / "checkpoints/last.ckpt"
        raise NoCheckpointError(
            f"--ckpt_path last: there is no {place} to go on from"
            + ("" if name else ". With --run NAME such a run is begun")
        )
    return newest


def config_of(runs_dir: Path, experiment: str, name: str) -> Path | None:
    """Return the newest config.yaml of the named run (experiment "*": of any); None: no such."""
    return _newest(runs_dir, experiment, name, "config.yaml")


def named_checkpoint(ckpt_path: str, runs_dir: str = "runs", experiment: str | None = None) -> str:
    """Return the file that a command's `--ckpt_path` names; print which where it is not the name.

    Args:
        ckpt_path: a file; or a name of published weights, which are fetched; or "last", the
            best.ckpt of the newest run, its last.ckpt where it has none. A file of that name is
            "./last".
        runs_dir: the folder of all experiments.
        experiment: of the run. None: any.

    Raises:
        RunFolderError: there is no run yet.
        WeightsError: published weights cannot be had.
    """
    if ckpt_path != "last":
        from deeplab_lit.network.weights.fetch import weight_file  # loads torch: not for --help

        file = weight_file(ckpt_path)
        if file != ckpt_path and _is_first_process():
            print(f"Checkpoint  {file}, of {ckpt_path}", flush=True)
        return file
    files = "checkpoints/last.ckpt", "checkpoints/best.ckpt"
    newest = _newest(Path(runs_dir), experiment or "*", None, *files)
    if newest is None:
        place = Path(runs_dir) / (experiment or "*") / "*/checkpoints"
        raise RunFolderError(
            f"--ckpt_path last: there is no checkpoint in {place}: train first, "
            "or name the checkpoint's file"
        )
    best = newest.with_name("best.ckpt")
    chosen = best if best.is_file() else newest
    if _is_first_process():
        print(f"Checkpoint  {chosen}, of the newest run", flush=True)
    return str(chosen)


def _newest(runs_dir: Path, experiment: str, name: str | None, *files: str) -> Path | None:
    """Return the newest of some files of the runs of an experiment ("*": of any)."""
    if experiment != "*":
        experiment = glob.escape(check_name("--experiment", experiment))
    name = glob.escape(check_name("--run", name)) if name else "*"
    paths = (path for file in files for path in runs_dir.glob(f"{experiment}/{name}/{file}"))
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)


def _is_first_process() -> bool:
    """Tell whether this is the first process of a training; Lightning, where loaded, knows it."""
    from lightning_utilities.core.rank_zero import rank_zero_only

    return not getattr(rank_zero_only, "rank", 0)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep all other processes from training in a folder until the block or this process ends.

    What processes that were killed while writing have left there is removed.

    Args:
        folder: of a run; exists.

    Raises:
        RunFolderError: another process trains there, or it cannot be written to.
    """
    path = folder / ".lock"
    while True:
        try:
            file = path.open("a")
            if hasattr(os, "register_at_fork"):  # workers may outlive us for a while
                os.register_at_fork(after_in_child=file.close)
            lock(file)
            locked = True
            stale = not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino
        except BlockingIOError as error:
            file.close()
            raise RunFolderError(
                f"{folder}: another process is training in this folder. Wait until it has ended, "
                "or end it; or give this run another name with --run"
            ) from error
        except NoLocksError as error:
            print(f"Note: {error}: see to it that no other process trains in {folder}")
            locked = stale = False
        except OSError as error:
            raise RunFolderError(
                f"{folder} cannot be written ({error.strerror or error}): choose another --runs_dir"
            ) from error
        if not stale:
            break
        file.close()  # its last holder has just ended and removed it: once more
    with file:
        if locked:
            for place in (folder, folder / "checkpoints"):
                for left in place.glob(f"{PREFIX}*"):
                    shutil.rmtree(left, ignore_errors=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def check_unfinished(folder: Path) -> None:
    """Refuse to begin a run anew where one has ended.

    Raises:
        RunFolderError: results.json says so, or cannot be read.
    """
    record = folder / "results.json"
    if not record.is_file():
        return
    try:
        finished = json.loads(record.read_text("utf-8"))["finished"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunFolderError(
            f"{record} is damaged, and there is no checkpoint to go on from: move {folder} away, "
            "or choose another --run"
        ) from error
    if finished:
        raise RunFolderError(
            f"{folder} holds a run that has ended, without its checkpoints: choose another --run"
        )


def create_run_folder(folder: Path, bytes_needed: int, *, exist_ok: bool = False) -> None:
    """Make the folder of a run, or refuse one in which the run cannot be written.

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


def open_results_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Make a folder for a command's results, or go on in one begun with the same settings.

    Args:
        folder: that the user names.
        settings: on which the results depend; kept in settings.json.

    Raises:
        RunFolderError: it holds something else, or cannot be made.
    """
    record = folder / "settings.json"
    settings = json.loads(json.dumps(settings))  # tuples are lists in a file
    if record.is_file():
        try:
            before = json.loads(record.read_text("utf-8")) | {}
        except (OSError, TypeError, ValueError) as error:
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
    with atomic_write(record) as place:
        place.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
