"""metrics.csv: every number that a run logs, one row an optimizer step, one column a metric.

Lightning's CSVLogger deletes the file of a run that is resumed in its folder; this one goes on in
it. It also gives the run folder its place: Lightning puts checkpoints into `save_dir`.
"""

import csv
import math
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit.whole import whole_file

SECONDS = 5  # between two writes: each writes the whole file


class MetricsFile(Logger):
    """A Lightning logger that writes `folder`/metrics.csv.

    Args:
        folder: the run folder; made when the first row is written.
        resume_step: the optimizer steps that a resumed run has behind it. Rows are counted from 0,
            so those from this one on, of a run that went on beyond its last checkpoint, are
            dropped. null: a new run.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: dict[int, dict[str, str]] = {}
        self.unsaved = False
        self.written = -math.inf
        if resume_step is not None and self.path.is_file():
            with self.path.open(newline="") as file:
                for row in csv.DictReader(file):
                    step = int(row.pop("step"))
                    if step < resume_step:
                        self.rows[step] = {key: value for key, value in row.items() if value != ""}

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
        """Nothing: config.yaml holds them."""

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
            self._write()

    def _write(self) -> None:
        """Write all rows anew, and then put them in place: a full disk costs no old one."""
        if not self.unsaved:
            return
        columns = sorted({key for row in self.rows.values() for key in row})
        with whole_file(self.path) as place, place.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *columns])
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self.rows.items()))
        self.unsaved, self.written = False, time.monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self._write()
