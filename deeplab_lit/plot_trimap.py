"""python -m deeplab_lit.plot_trimap: mIoU near borders of several validations in one plot.

Each VALIDATION is the run folder of a `validate --eval.trimap …`, or its trimap.csv. The curves are
called after their folders, or as --labels says; they are the paper's Fig. 10 where the bands are
around void.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from deeplab_lit.cli.parser import Parser, parse
from deeplab_lit.data import DataError
from deeplab_lit.errors import plain_errors
from deeplab_lit.pictures.charts import band_curves
from deeplab_lit.scoring.evaluation import Around
from deeplab_lit.scoring.trimap import NAMES
from deeplab_lit.text import plural, say

EXAMPLES = [
    "python -m deeplab_lit.validate --ckpt_path last --eval.trimap void",
    "python -m deeplab_lit.plot_trimap last --out trimap.png",
]
FIRST = "Run validate with --eval.trimap void or classes first, and give its run folder."


class Curves(NamedTuple):
    """The content of a trimap.csv.

    Attributes:
        around: "void" or "classes": the borders meant.
        widths: of the bands, in pixels.
        miou: column → mIoU in 0…1 at each width.
    """

    around: str
    widths: list[int]
    miou: dict[str, list[float]]


def read_curves(path: Path) -> Curves:
    """Read a trimap.csv.

    Args:
        path: the file, or its folder.

    Raises:
        DataError: there is none, or it is something else.
    """
    path = path / "trimap.csv" if path.is_dir() else path
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        widths, around = [int(row["width"]) for row in rows], {row["around"] for row in rows}
        names = [name for name in NAMES if rows and name in rows[0]]
        miou = {name: [float(row[name]) for row in rows] for name in names}
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}. {FIRST}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no trimap.csv that validate wrote") from error
    if not miou or not around <= {*get_args(Around)} or len(around) != 1:
        raise DataError(f"{path} is no trimap.csv that validate wrote")
    return Curves(around.pop(), widths, miou)


def build_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser(
        prog="python -m deeplab_lit.plot_trimap", description=__doc__, examples=EXAMPLES
    )
    parser.add_argument(
        "runs",
        type=str,
        nargs="+",
        metavar="VALIDATION",
        help='Folders or files; "last": the newest in runs/.',
    )
    parser.add_argument("--out", type=str, default="trimap.png", help="The picture, a PNG.")
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
            verb = "is" if len(runs) == 1 else "are"
            raise DataError(
                f"--labels names {plural(len(labels), 'run')}, but {len(runs)} {verb} given"
            )
        if len(set(labels)) < len(labels):
            raise DataError(f"the runs need different names, got {', '.join(labels)}: use --labels")
        measured = [read_curves(run) for run in runs]
        first = measured[0]
        for run, curves in zip(runs, measured, strict=True):
            if (curves.around, curves.widths) != (first.around, first.widths):
                raise DataError(
                    f"{run} has bands around {curves.around}, {runs[0]} around {first.around}, or "
                    "other widths: they cannot be compared"
                )
        lines: dict[str, Sequence[float]] = {
            label + NAMES[name].removeprefix("mIoU"): values
            for label, curves in zip(labels, measured, strict=True)
            for name, values in curves.miou.items()
        }
        out = Path(options.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        band_curves(lines, first.widths, first.around, out)
        say(f"Picture     {len(lines)} curves in {out}")


def _newest() -> Path:
    files = Path("runs").glob("*/*/trimap.csv")
    newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise DataError(f"last: there is no run with a trimap.csv in runs/. {FIRST}")
    say(f"Run         {newest.parent}")
    return newest.parent


def _names(runs: list[Path]) -> list[str]:
    """Return the folders' names; with their parents' where those would be the same."""
    folders = [(run if run.is_dir() else run.parent).absolute() for run in runs]
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [f"{folder.parent.name}/{folder.name}" for folder in folders]


if __name__ == "__main__":
    main()
