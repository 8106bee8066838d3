"""Keep what parts of a benchmark have found: a file each, and one report of all, whole at any time.

OUT/parts/<part>.json is written again after every row; so are OUT/results.json and OUT/report.md,
whose tables are ready for a README.
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch

from deeplab_lit.atomic import atomic_write
from deeplab_lit.benchmark.meter import device_in_words
from deeplab_lit.text import redacted_words, say

Row = Mapping[str, str]  # column → what stands there


class Options(NamedTuple):
    """Hold the options of the command.

    Attributes:
        device: to measure.
        small: tiny sizes, to see that all runs.
        out: folder of the results.
        camvid: folder of CamVid; None: Shapes is trained instead.
        weights: of VGG-16, to begin with; None: from nothing.
    """

    device: torch.device
    small: bool
    out: Path
    camvid: str | None
    weights: str | None


class Part:
    """A part of a benchmark: rows and notes, printed and written as they come.

    Args:
        out: folder of the benchmark.
        name: of the part.
        title: what its table shows.
        device: that it measures.
        seconds: that it may take; after these it begins nothing more.
    """

    def __init__(
        self, out: Path, name: str, title: str, device: torch.device, seconds: float
    ) -> None:
        self.out, self.name = out, name
        self.end = perf_counter() + seconds
        self.content: dict[str, Any] = {
            "title": title,
            "device": device_in_words(device),
            "torch": torch.__version__,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "command": shlex.join(["python", "-m", "deeplab_lit.benchmark", *_typed()]),
            "rows": [],
            "notes": [],
            "finished": False,
        }
        say(f"\n{name}: {title}, at most {seconds:.0f} s")
        self._write()

    def left(self) -> float:
        """Return the seconds that are left, from 0 up."""
        return max(self.end - perf_counter(), 0.0)

    def row(self, **columns: object) -> None:
        """Add a row; underscores in the names of columns stand for spaces."""
        row = {name.replace("_", " "): str(value) for name, value in columns.items()}
        say("  " + "   ".join(f"{name} {value}" for name, value in row.items()))
        self.content["rows"].append(row)
        self._write()

    def note(self, text: str) -> None:
        """Add a sentence."""
        say(f"  {text}")
        self.content["notes"].append(text)
        self._write()

    def finish(self) -> None:
        """Mark the part as complete."""
        self.content["finished"] = True
        self._write()

    def _write(self) -> None:
        _write_json(self.out / "parts" / f"{self.name}.json", self.content)
        write_report(self.out)


def _typed() -> list[str]:
    return redacted_words(sys.argv[1:])


def write_report(out: Path) -> None:
    """Write results.json and report.md of all parts that there are, in the order of their begin."""
    files = sorted((out / "parts").glob("*.json"), key=lambda path: path.name)
    parts = {path.stem: json.loads(path.read_text("utf-8")) for path in files}
    _write_json(out / "results.json", parts)
    with atomic_write(out / "report.md") as place:
        place.write_text("\n".join(_lines(parts)) + "\n", "utf-8")


def _write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as place:
        place.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _lines(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["# What was measured"]
    for name, part in parts.items():
        cut = "" if part["finished"] else " (not complete)"
        lines += ["", f"## {name.partition('_')[2]}: {part['title']}{cut}", ""]
        lines += [f"{part['device']}, torch {part['torch']}, {part['date']}: `{part['command']}`"]
        lines += ["", *table(part["rows"])] if part["rows"] else []
        lines += ["", *(f"- {note}" for note in part["notes"])] if part["notes"] else []
    return lines


def table(rows: Sequence[Row]) -> list[str]:
    """Return rows as the lines of a Markdown table; a row without a column is empty there."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    body = [[row.get(name, "") for name in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *body]
    return [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    ]
