"""The report of an ablation: table.md, table.csv, plot.png and report.html in its folder.

report.html is one file that holds all it shows; its words and layout are in report.html.j2.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab_lit.ablate import plots
from deeplab_lit.ablate.panels import Panels, Sample, look
from deeplab_lit.ablate.plan import Run, labels_of
from deeplab_lit.ablate.results import macs_of, read_results
from deeplab_lit.ablate.sweep import Sweep
from deeplab_lit.ablate.table import Row, as_csv, cells, markdown, rows
from deeplab_lit.ablate.words import findings, left_out, origin, table_note
from deeplab_lit.atomic import atomic_write
from deeplab_lit.errors import UserError
from deeplab_lit.pictures import web_page
from deeplab_lit.pictures.masks import VOID_COLOR, palette_image
from deeplab_lit.terminal import command
from deeplab_lit.text import say
from deeplab_lit.types import VOID, Classes

MAX_FIELDS = 24  # drawn; each is some 20 to 200 kB of the page
FULL_TINT = 10  # points of difference


def write_report(
    sweep: Sweep, runs: Sequence[Run], folder: Path, options: Sequence[str] = ()
) -> None:
    """Report the runs that are done, and print the table.

    Args:
        sweep: the grid.
        runs: all runs of it.
        folder: folder of the ablation, where the report goes.
        options: options of the command line, which every run got.
    """
    table, absent = summarize(sweep, runs)
    if not table:
        print("\n".join([_nothing_done(folder), *absent]), file=sys.stderr)
        return
    panels, no_panels = _panels(table)
    files = {
        "table.md": markdown(table).encode(),
        "table.csv": as_csv(table).encode(),
        "plot.png": web_page.draw(plots.settings_plot(table), "png"),
        "report.html": page(sweep, table, absent, panels, no_panels, options).encode(),
    }
    for name, content in files.items():
        with atomic_write(folder / name) as place:
            place.write_bytes(content)
    print(f"\n{markdown(table)}")
    for sentence in absent:
        print(sentence)
    report = folder / "report.html"
    say(
        f"Report      {report}",
        f"Table       {folder / 'table.md'}, table.csv",
        f"Next        {command('webbrowser', '-t', report.absolute().as_uri())}",
    )


def summarize(sweep: Sweep, runs: Sequence[Run]) -> tuple[list[Row], list[str]]:
    """Read the runs that are done.

    Args:
        sweep: the grid.
        runs: all runs of it.

    Returns:
        Rows of the table, the baseline first; none where no run is done. And sentences on the runs
        that are left out.
    """
    results, damaged = read_results(runs)
    option, labels = short_labels(labels_of(sweep))
    absent = left_out(runs, results, damaged, labels)
    refined = all(result.miou_crf is not None for result in results)
    after_crf = sweep.after_crf and refined
    count = cache(macs_of)  # settings may share their trainings
    table = [
        replace(row, macs=count(row.results[0].run.fit.folder))
        for row in rows(results, labels, after_crf, option, sweep.subset)
    ]
    return table, absent


def _nothing_done(folder: Path) -> str:
    """Return the message for an empty report; hints at other options where runs exist."""
    message = "Nothing to report yet: no run is done."
    if any(folder.glob("*/results.json")):
        message += (
            f" {folder} holds runs, but none that is done and was asked for as here: give the same "
            "--crf, --seeds and options with a dot as when they were made."
        )
    return message


def _panels(table: Sequence[Row]) -> tuple[Panels | None, str]:
    """Return the panels, or why there are none: the data may lie elsewhere by now."""
    try:
        return look(table), ""
    except (UserError, MemoryError) as error:
        return None, str(error)


def short_labels(labels: Sequence[str]) -> tuple[str, list[str]]:
    """Return the only option of all labels and its values; of several, "setting" and the labels."""
    names = {label.partition(" ")[0] for label in labels}
    if len(names) > 1 or any(";" in label for label in labels):
        return "setting", list(labels)
    return names.pop(), [label.partition(" ")[2] for label in labels]


def page(
    sweep: Sweep,
    table: Sequence[Row],
    absent: Sequence[str],
    panels: Panels | None,
    no_panels: str,
    options: Sequence[str] = (),
) -> str:
    """Return report.html.

    Args:
        sweep: the grid.
        table: rows of the table, at least one.
        absent: sentences on what is left out.
        panels: pictures of what the networks see; None: they could not be made.
        no_panels: why not.
        options: options of the command line, which every run got.
    """
    first = table[0]
    classes = list(first.results[0].scored(first.after_crf)["iou"])
    context = {
        "name": sweep.name,
        "description": sweep.description,
        "options": options,
        "option": first.option,
        "after_crf": first.after_crf,
        "sentences": [*findings(table), *absent],
        "columns": list(cells(first)),
        "table": [(_kind(row, index), cells(row)) for index, row in enumerate(table)],
        "table_note": table_note(table),
        "settings_plot": plots.settings_plot(table),
        "curves_plot": plots.curves_plot(table),
        "classes": classes,
        "class_table": _class_table(table, classes),
        "panels": panels,
        "no_panels": no_panels,
        "origin": origin(table),
    }
    if panels is not None:
        fields = panels.fields()
        drawn = dict(list(fields.items())[:MAX_FIELDS])
        context |= {
            "titles": ["image", "truth", *map(_title, table)],
            "samples": [
                (sample.id, _pictures(sample, panels.classes)) for sample in panels.samples
            ],
            "legend": _legend(panels),
            "all_fields": len(fields),
            "drawn_fields": len(drawn),
            "fields_plot": plots.fields_plot(drawn),
            "taps_plots": {grid: plots.taps_plot(*grid, r) for grid, r in panels.rates().items()},
        }
    return web_page.render(Path(__file__).with_name("report.html.j2"), context)


def _kind(row: Row, index: int) -> str:
    """Return the CSS class of a row."""
    if index == 0:
        return "baseline"
    verdict = row.difference.verdict if row.difference else ""
    return verdict if verdict in ("better", "worse") else "noise"


def _class_table(table: Sequence[Row], classes: Sequence[str]) -> list[Any]:
    """Return for each row its label and, for each class, a text and a tint in −0.6…0.6.

    The first row has the IoU in percent, the others the difference to it.
    """
    iou = np.array([[_mean_iou(row, name) for name in classes] for row in table]) * 100
    lines: list[Any] = [(table[0].label, [(_number(value, ".1f"), 0.0) for value in iou[0]])]
    for row, values in zip(table[1:], iou[1:] - iou[0], strict=True):
        tints = np.nan_to_num(0.6 * np.clip(values / FULL_TINT, -1, 1))
        texts = [_number(value, "+.1f") for value in values]
        lines.append((row.label, list(zip(texts, tints.tolist(), strict=True))))
    return lines


def _number(value: float, form: str) -> str:
    return "–" if np.isnan(value) else f"{value:{form}}"


def _mean_iou(row: Row, name: str) -> float:
    values = [v for r in row.results if (v := r.scored(row.after_crf)["iou"].get(name)) is not None]
    return float(np.mean(values)) if values else float("nan")


def _title(row: Row) -> str:
    return row.label if row.option == "setting" else f"{row.option} {row.label}"


def _legend(panels: Panels) -> Classes:
    """Return the classes, and void where a mask has some."""
    masks = [mask for sample in panels.samples for mask in (sample.truth, *sample.predictions)]
    void = any((mask == VOID).any() for mask in masks)
    return panels.classes | ({"void": VOID_COLOR} if void else {})


def _pictures(sample: Sample, classes: Classes) -> list[Image.Image]:
    """Return the image, the truth, and the prediction of each setting."""
    masks, colors = (sample.truth, *sample.predictions), list(classes.values())
    return [Image.fromarray(sample.image), *(palette_image(mask, colors) for mask in masks)]
