"""python -m deeplab_lit.plot_bands: mIoU near borders of several validations in one plot.

Each VALIDATION is the run folder of a `validate --eval.band …`, or its band.csv. The curves are
called after their folders, or as --labels says; they are the paper's Fig. 10 where the bands are
around void.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from deeplab_lit.cli.parser import Parser, parse
from deeplab_lit.data import DataError
from deeplab_lit.errors import plain_errors
from deeplab_lit.pictures.charts import band_curves
from deeplab_lit.scoring.trimap import NAMES, Around
from deeplab_lit.text import plural

FIRST = "Run validate with --eval.band void or classes first, and give its run folder."


def read_bands(path: Path) -> tuple[tuple[list[int], str], dict[str, list[float]]]:
    """Widths in pixels with what they are around, and the curves of a band.csv by their columns.

    Args:
        path: the file, or its folder.

    Raises:
        DataError: there is none, or it is something else.
    """
    path = path / "band.csv" if path.is_dir() else path
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        bands = [int(row["width"]) for row in rows], "".join({row["around"] for row in rows})
        names = [name for name in NAMES if rows and name in rows[0]]
        curves = {name: [float(row[name]) for row in rows] for name in names}
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}. {FIRST}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no band.csv that validate wrote") from error
    if not curves or bands[1] not in get_args(Around):
        raise DataError(f"{path} is no band.csv that validate wrote")
    return bands, curves


def build_parser() -> Parser:
    """The options."""
    parser = Parser(prog="python -m deeplab_lit.plot_bands", description=__doc__)
    parser.add_argument(
        "runs",
        type=str,
        nargs="+",
        metavar="VALIDATION",
        help='Folders or files; "last": the newest in runs/.',
    )
    parser.add_argument("--out", type=str, default="bands.png", help="The picture, a PNG.")
    parser.add_argument(
        "--labels", type=list[str] | None, default=None, help="Names of the runs, in their order."
    )
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    with plain_errors():
        options = parse(build_parser(), sys.argv[1:] if args is None else args)
        runs = [_newest() if run == "last" else Path(run) for run in options.runs]
        labels = options.labels or _names(runs)
        if len(labels) != len(runs):
            given = f"{len(runs)} {'is' if len(runs) == 1 else 'are'} given"
            raise DataError(f"--labels names {plural(len(labels), 'run')}, but {given}")
        if len(set(labels)) < len(labels):
            raise DataError(f"the runs need different names, got {', '.join(labels)}: use --labels")
        shown, bands = {}, None
        for label, run in zip(labels, runs, strict=True):
            own, curves = read_bands(run)
            if bands and own != bands:
                raise DataError(
                    f"{run} has bands around {own[1]}, {runs[0]} around {bands[1]}, or other "
                    "widths: they cannot be compared"
                )
            bands = own
            for name, curve in curves.items():
                shown[label + NAMES[name].removeprefix("mIoU")] = curve
        out = Path(options.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        band_curves(shown, *bands, out)
        print(f"{len(shown)} curves in {out}")


def _newest() -> Path:
    found = Path("runs").glob("*/*/band.csv")
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise DataError(f"last: there is no run with a band.csv in runs/. {FIRST}")
    print(f"Run         {newest.parent}")
    return newest.parent


def _names(runs: list[Path]) -> list[str]:
    """The folders' names; with their parents' where those would be the same."""
    folders = [(run if run.is_dir() else run.parent).absolute() for run in runs]
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [f"{folder.parent.name}/{folder.name}" for folder in folders]


if __name__ == "__main__":
    main()
