"""The report of an ablation: table.md, table.csv, plot.png and report.html in its folder."""

import sys
from collections.abc import Sequence
from pathlib import Path

from deeplab_lit.ablate.cells import as_csv, markdown
from deeplab_lit.ablate.left_out import left_out
from deeplab_lit.ablate.page import page
from deeplab_lit.ablate.pictures import Shown, look
from deeplab_lit.ablate.plan import Run, labels_of
from deeplab_lit.ablate.plots import picture, settings_plot
from deeplab_lit.ablate.results import read_results
from deeplab_lit.ablate.sweep import Sweep
from deeplab_lit.ablate.table import rows
from deeplab_lit.atomic import atomic_write
from deeplab_lit.errors import UserError


def write_report(
    sweep: Sweep, runs: Sequence[Run], folder: Path, options: Sequence[str] = ()
) -> None:
    """Report the runs that are done, and print the table.

    Args:
        sweep: the grid.
        runs: all of it.
        folder: of the ablation, where the report goes.
        options: of the command line, which every run got.
    """
    results = read_results(runs)
    option, labels = short(labels_of(sweep))
    absent = left_out(runs, results, labels)
    if not results:
        print("\n".join([_nothing(folder), *absent]), file=sys.stderr)
        return
    refined = all(result.miou_crf is not None for result in results)
    made = rows(results, labels, after_crf=sweep.after_crf and refined, option=option)
    shown, why = _look(made)
    files = {
        "table.md": markdown(made).encode(),
        "table.csv": as_csv(made).encode(),
        "plot.png": picture(settings_plot(made), "png"),
        "report.html": page(sweep, made, absent, shown, why, options).encode(),
    }
    for name, content in files.items():
        with atomic_write(folder / name) as place:
            place.write_bytes(content)
    print(f"\n{markdown(made)}")
    for line in absent:
        print(line)
    print(f"Report      {folder / 'report.html'}\nTable       {folder / 'table.md'}, table.csv")


def _nothing(folder: Path) -> str:
    """That there is no result, and what may be the matter where there are runs all the same."""
    said = "Nothing to report yet: no run is done."
    if any(folder.glob("*/results.json")):
        said += (
            f" {folder} holds runs, but none that is done and was asked for as here: give the same "
            "--crf, --seeds and options with a dot as when they were made."
        )
    return said


def _look(made: list) -> tuple[Shown | None, str]:
    """The pictures, or why there are none: the data may lie elsewhere by now."""
    try:
        return look(made), ""
    except (UserError, MemoryError) as error:
        return None, str(error)


def short(labels: Sequence[str]) -> tuple[str, list[str]]:
    """The option that all labels are of, and its values; of several, "setting" and the labels."""
    names = {words.partition(" ")[0] for words in labels}
    if len(names) > 1 or any(";" in words for words in labels):
        return "setting", list(labels)
    return names.pop(), [words.partition(" ")[2] for words in labels]
