"""metrics.csv: every number that a run logs, one row an optimizer step, one column a metric.

Lightning's CSVLogger deletes the file of a run that is resumed in its folder; this one goes on in
it. It also gives the run folder its place: Lightning puts checkpoints into `save_dir`.
"""

import csv
import math
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit.atomic import atomic_write
from deeplab_lit.runs.folder import RunFolderError

SECONDS = 5  # between two writes: each writes the whole file


class MetricsFile(Logger):
    """A Lightning logger that writes `folder`/metrics.csv.

    Args:
        folder: the run folder; made when the first row is written.
        resume_step: the optimizer steps that a resumed run has behind it. Rows are counted from 0,
            so those from this one on, of a run that went on beyond its last checkpoint, are
            dropped. None: a new run.

    Raises:
        RunFolderError: the file of a resumed run cannot be read.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: dict[int, dict[str, str]] = {}
        self.unsaved = False
        self.written = -math.inf
        if resume_step is not None and self.path.is_file():
            self.rows = {step: row for step, row in _read(self.path) if step < resume_step}

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @property
    def name(self) -> str:
        """Empty: nothing between the run folder and checkpoints/."""
        return ""

    @property
    def version(self) -> str:
        """Empty, as the name."""
        return ""

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Do nothing: config.yaml has the hyper-parameters."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of a step."""
        row = self.rows.setdefault(step or 0, {})
        row.update({key: f"{float(value):.8g}" for key, value in metrics.items()})
        self.unsaved = True
        self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write, unless that has just been done; Lightning asks for it at every row."""
        if time.monotonic() - self.written > SECONDS:
            self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write all rows anew, and then put them in place: a full disk costs no old one."""
        if not self.unsaved:
            return
        columns = sorted({key for row in self.rows.values() for key in row})
        with atomic_write(self.path) as place, place.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *columns])
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self.rows.items()))
        self.unsaved, self.written = False, time.monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.write()


def _read(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the step and the values of each row.

    Raises:
        RunFolderError: it is no file that this class has written.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                step = int(row.pop("step"))
                if None in row or None in row.values():
                    raise ValueError(f"step {step} has more or fewer values than columns")
                yield step, {key: value for key, value in row.items() if value != ""}
    except (KeyError, TypeError, ValueError, OSError, csv.Error) as error:
        raise RunFolderError(
            f"{path} is damaged or not a run's ({error!r}): mend it, or move it away to go on "
            "without the numbers so far"
        ) from error


def read_metrics(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Read a metrics.csv: column → (optimizer steps done, value) of each row that has one."""
    columns: dict[str, list[tuple[int, float]]] = {}
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                step = int(row.pop("step")) + 1
                for name, value in row.items():
                    if value:
                        columns.setdefault(name, []).append((step, float(value)))
    return columns
