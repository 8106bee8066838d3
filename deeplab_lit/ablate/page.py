"""report.html: one file that holds all it shows, for somebody who has not read the code."""

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

from deeplab_lit.ablate.branches import Fields
from deeplab_lit.ablate.cells import cells
from deeplab_lit.ablate.findings import findings
from deeplab_lit.ablate.gallery import gallery
from deeplab_lit.ablate.origin import each, origin
from deeplab_lit.ablate.pictures import Shown
from deeplab_lit.ablate.plots import curves_plot, fields_plot, picture, settings_plot, taps_plot
from deeplab_lit.ablate.sweep import Sweep
from deeplab_lit.ablate.table import Row

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a202c; background: #fff;
  max-width: 78rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, p, li { overflow-wrap: anywhere; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
.lead { color: #4a5568; margin-top: .25rem; }
.note { color: #4a5568; font-size: .9rem; max-width: 48rem; }
.scroll { overflow-x: auto; background:  /* a shadow where there is more to scroll to */
  linear-gradient(to right, #fff 30%, #fff0) 0 0 / 40px 100% local,
  linear-gradient(to left, #fff 30%, #fff0) 100% 0 / 40px 100% local,
  linear-gradient(to right, #0003, #0000) 0 0 / 14px 100% scroll,
  linear-gradient(to left, #0003, #0000) 100% 0 / 14px 100% scroll;
  background-repeat: no-repeat; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid #e2e8f0; }
td { white-space: nowrap; }
th { overflow-wrap: break-word; max-width: 12rem; }
th:first-child, td:first-child { text-align: left; }
td.words { white-space: normal; overflow-wrap: anywhere; min-width: 4rem; max-width: 22rem; }
td.words:first-child { min-width: 9rem; }
thead th { border-bottom: 2px solid #a0aec0; vertical-align: bottom; }
tr.baseline { background: #f7fafc99; }
.better { color: #22543d; } .worse { color: #9b2c2c; } .noise { color: #4a5568; }
.pictures td, .pictures th { padding: 2px; border: 0; text-align: center; font-weight: normal;
  white-space: normal; font-size: .8rem; width: 150px; }
.pictures img { width: 150px; display: block; image-rendering: auto; }
img.plot { max-width: 100%; } li { margin-bottom: .4rem; }
.class { white-space: nowrap; }
.swatch { display: inline-block; width: .8em; height: .8em; border: 1px solid #555; }
"""
MOST_FIELDS = 24  # each some 20 to 200 kB of the page
READING = """mIoU is the mean intersection over union on the validation images, in percent;
± is the standard deviation between seeds. The difference is to the first row{when}, with the
interval that holds 95 % of what it becomes when the validation images are drawn anew (paired
bootstrap). “Within noise” says that the interval contains zero, or that seeds alone may differ as
much: p, the probability of such a difference between seeds (Welch’s t-test; paired where rows share
their trainings; corrected for the number of rows after Holm), is above 5 %. It does not say that
settings are equal: there may be too few seeds or images to tell. With one seed p is unknown, and so
is the verdict, whatever the interval. Scores are those of the best checkpoint of each training,
which was chosen on these same images, so all rows may be somewhat high. Parameters are the
learnable ones; images/s and seconds are of the training, on {devices}."""


def page(
    sweep: Sweep,
    rows: Sequence[Row],
    absent: Sequence[str],
    shown: Shown | None,
    why_not: str,
    options: Sequence[str] = (),
) -> str:
    """The whole document.

    Args:
        sweep: the grid.
        rows: of the table, at least one.
        absent: sentences on what is left out.
        shown: pictures; null where they could not be made.
        why_not: the reason.
        options: of the command line, which every run got besides what the file says.
    """
    when = ", after the CRF" if rows[0].after_crf else ""
    devices = " and ".join(each(r.fit["device"] for row in rows for r in row.results))
    reading = READING.format(when=when, devices=escape(devices))
    parts = [
        f"<h1>{escape(sweep.name)}</h1>",
        f'<p class="lead">{escape(sweep.description)}</p>',
        _given(options),
        "<h2>What came out</h2><ul>",
        *(f"<li>{escape(line)}</li>" for line in (*findings(rows), *absent)),
        "</ul>",
        f"<h2>Table</h2>{_table(rows)}",
        f'<p class="note">{reading}</p>',
        _plot(settings_plot(rows), "mIoU of every setting and seed"),
        "<h2>While it was trained</h2>",
        _plot(curves_plot(rows), "mIoU over the training, mean and range of the seeds"),
        "<h2>Class by class</h2>",
        f'<p class="note">IoU in percent of the first row{when}; below it, the difference to '
        "that.</p>",
        _classes(rows),
        "<h2>The same images under every setting</h2>",
    ]
    if shown is None:
        parts.append(f"<p>No pictures: {escape(why_not)}</p>")
    else:
        parts += [gallery(rows, shown), _fields(shown.fields)]
    parts.append(f'<h2>How it was made</h2><p class="note">{escape(origin(rows))}</p>')
    title = f"{escape(sweep.name)}: ablation"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        + "\n".join(parts)
        + "</html>\n"
    )


def _given(options: Sequence[str]) -> str:
    if not options:
        return ""
    return (
        f'<p class="note">Every run was given {escape(", ".join(options))}, which counts before '
        "what the sweep file says, and its description above.</p>"
    )


def _table(rows: Sequence[Row]) -> str:
    lines = []
    for i, row in enumerate(rows):
        values = cells(row)
        word = row.difference.verdict if row.difference else ""
        kind = "baseline" if i == 0 else word if word in ("better", "worse") else "noise"
        wide = ("verdict", row.option)
        line = "".join(_cell(value, words=name in wide) for name, value in values.items())
        lines.append(f'<tr class="{kind}">{line}</tr>')
    head = "".join(f"<th>{escape(name)}</th>" for name in values)
    return _scrolled(head, lines)


def _cell(value: str, *, words: bool) -> str:
    kind = ' class="words"' if words else ""
    return f"<td{kind}>{escape(value)}</td>"


def _classes(rows: Sequence[Row]) -> str:
    classes = list(rows[0].results[0].scored(rows[0].after_crf)["iou"])
    iou = np.array([[_mean(row, name) for name in classes] for row in rows]) * 100
    head = "".join(f"<th>{escape(name)}</th>" for name in classes)
    lines = []
    for i, row in enumerate(rows):
        values = iou[i] - iou[0] if i else iou[0]
        style = [_tint(value) if i else "" for value in values]
        text = ["–" if np.isnan(v) else f"{v:+.1f}" if i else f"{v:.1f}" for v in values]
        line = "".join(f'<td style="{s}">{t}</td>' for s, t in zip(style, text, strict=True))
        lines.append(f"<tr>{_cell(row.label, words=True)}{line}</tr>")
    return _scrolled(f"<th>{escape(rows[0].option)}</th>{head}", lines)


def _mean(row: Row, name: str) -> float:
    values = [v for r in row.results if (v := r.scored(row.after_crf)["iou"].get(name)) is not None]
    return float(np.mean(values)) if values else float("nan")


def _tint(points: float) -> str:
    """Background of a difference: green or red, full at ten points."""
    if np.isnan(points):
        return ""
    strength = min(abs(points) / 10, 1) * 0.6
    return f"background: rgba({'56,161,105' if points > 0 else '229,62,62'},{strength:.2f})"


def _fields(seen: Fields) -> str:
    """What the branches see, of each training."""
    lines = []
    for label, branches in seen.branches.items():
        for branch in branches:
            taps = "–" if branch.taps is None else f"{100 * branch.taps:.0f} %"
            square = branch.theoretical or "whole image"
            values = (branch.name, square, branch.effective, taps)
            numbers = "".join(_cell(str(value), words=False) for value in values)
            lines.append(f"<tr>{_cell(label, words=True)}{numbers}</tr>")
    names = ("setting", "branch", "theoretical field, px", "90 % of the gradient, px", "real taps")
    head = "".join(f"<th>{name}</th>" for name in names)
    fields = seen.pictures()
    drawn = dict(list(fields.items())[:MOST_FIELDS])
    left_out = (
        f" The first {len(drawn)} of {len(fields)} are drawn; the table has all."
        if len(drawn) < len(fields)
        else ""
    )
    parts = [
        "<h2>What the branches see</h2>"
        '<p class="note">The theoretical field is the square of pixels that an output cell can '
        "depend on. The effective field is where its gradient lies: that of each class’s score "
        "less the mean of all classes, or of the sum of a branch’s features where it has no "
        "scores, at the cell nearest to the middle, averaged over the images above; the table has "
        "the square around the cell that holds 90 % of it. Real taps are those of the 3×3 kernel "
        "that fall on features instead of padding: a rate as large as the grid of features leaves "
        "a 1×1 convolution. All of the first seed, at scale 1.</p>",
        _scrolled(head, lines),
        '<p class="note">Effective fields by setting and branch, on one logarithmic scale of four '
        f"decades, brighter is more.{left_out}</p>",
        _plot(fields_plot(drawn), "Effective fields by setting and branch"),
    ]
    for (height, width), rates in seen.rates().items():
        what = f"Taps on real features by rate, on {width}×{height} cells"
        parts.append(_plot(taps_plot(height, width, rates), what))
    return "".join(parts)


def _scrolled(head: str, lines: Sequence[str]) -> str:
    """A table, wider than the page if it must."""
    body = "".join(lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{body}</table></div>'


def _plot(figure: object, what: str) -> str:
    data = base64.b64encode(picture(figure, "svg")).decode()
    return f'<p><img class="plot" alt="{escape(what)}" src="data:image/svg+xml;base64,{data}"></p>'
