"""The plots of an ablation, each a matplotlib Figure; none touches matplotlib's global state."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deeplab_lit.ablate.table import Row, by_training
from deeplab_lit.network.receptive_field import real_taps, share_of_real_taps
from deeplab_lit.pictures.charts import LONGEST_NAME, legend
from deeplab_lit.pictures.masks import short

BEFORE, AFTER = "#2b6cb0", "#c05621"
COLORS = (  # of settings: matplotlib's tab10
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
)
STYLES = ("-", "--", ":", "-.")  # of lines of the same color


def setting_color(setting: int) -> str:
    """Return the color of a setting, by its index: the same wherever it is drawn."""
    return COLORS[setting % len(COLORS)]


def settings_plot(rows: Sequence[Row]) -> Any:
    """Plot the scores of each setting: a dot a seed, a bar at the mean; without and with CRF."""
    names = [short(row.label, LONGEST_NAME) for row in rows]
    longest = max(map(len, names))
    figure, axes = _figure(7.5 + 0.08 * max(longest - 30, 0), 1.25 + 0.42 * len(rows))
    kinds = [(False, BEFORE, "network")]
    if any(row.scores(True, row.subset) for row in rows):
        kinds.append((True, AFTER, "after the CRF"))
    dots = []
    for after_crf, color, _ in kinds:
        for y, row in enumerate(rows):
            scores = 100 * np.array(row.scores(after_crf, row.subset))
            if len(scores):
                axes.plot(scores, [y] * len(scores), "o", color=color, alpha=0.45, markersize=5)
                axes.plot(scores.mean(), y, "|", color=color, markersize=20, markeredgewidth=2.5)
        dots += axes.plot([], [], "o", color=color)
    if baseline := rows[0].compared():
        color = AFTER if rows[0].after_crf else BEFORE
        axes.axvline(100 * np.mean(baseline), color=color, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    option = "" if rows[0].option == "setting" else short(rows[0].option)
    axes.set_ylabel(option, parse_math=False)
    axes.set_xlabel(
        f"mIoU{rows[0].subset} on the validation images, %\n(a dot a seed, a bar at the mean)"
    )
    axes.grid(axis="x", alpha=0.3)
    if len(kinds) > 1:  # above, where it covers no dot
        place = {"loc": "outside upper right", "ncols": 2, "frameon": False}
        legend(figure, dots, [name for _, _, name in kinds], fontsize=8, **place)
    return figure


def curves_plot(rows: Sequence[Row]) -> Any:
    """Plot the scores over the training: mean of the seeds, and the range from low to high."""
    trainings = {words: group[0] for words, group in by_training(rows).items()}
    option = rows[0].option
    title = None if option == "setting" else short(option, LONGEST_NAME)
    longest = max(len(short(name, LONGEST_NAME)) for name in (*trainings, title or ""))
    figure, axes = _figure(7.9 + 0.065 * longest, max(4, 0.6 + 0.18 * len(trainings)))
    lines: list[Any] = []
    names: list[str] = []
    for label, row in trainings.items():
        curves = [dict(result.curve) for result in row.results]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        values = 100 * np.array([[curve[step] for step in steps] for curve in curves])
        if steps:
            setting = row.results[0].run.setting
            color, style = setting_color(setting), STYLES[setting // len(COLORS) % len(STYLES)]
            lines += axes.plot(steps, values.mean(0), style, marker=".", color=color)
            band = {"color": color, "alpha": 0.15, "linewidth": 0}
            axes.fill_between(steps, values.min(0), values.max(0), **band)
            names.append(label)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("mIoU, %")
    axes.grid(alpha=0.3)
    place = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # beside, where it covers no curve
    names_of_lines = legend(axes, lines, names, fontsize=8, title=title, **place)
    names_of_lines.get_title().set_parse_math(False)
    return figure


def taps_plot(height: int, width: int, rates: Sequence[int] = ()) -> Any:
    """Plot how atrous kernels degenerate: 3×3 taps that fall on features, as the rate grows.

    Args:
        height: h, cells of the feature grid.
        width: w, cells of the feature grid.
        rates: rates to mark.
    """
    figure, axes = _figure(7.5, 3.2)
    all_rates = range(1, max(height, width, *rates) + 1)
    shares: dict[int, list[float]] = {taps: [] for taps in (9, 6, 4, 3, 2, 1)}
    for rate in all_rates:
        counts = real_taps(rate, height, width)
        for taps, values in shares.items():
            values.append(100 * (counts == taps).double().mean().item())
    axes.stackplot(
        all_rates,
        list(shares.values()),
        labels=[f"{taps} of 9 taps real" for taps in shares],
        colors=["#1a4971", "#2b6cb0", "#63a0d4", "#a9cce8", "#d5e6f4", "#eeeeee"],
    )
    means = [100 * share_of_real_taps(rate, height, width) for rate in all_rates]
    axes.plot(all_rates, means, color=AFTER, linewidth=2, label="real taps, mean")
    for rate in sorted(set(rates)):
        axes.axvline(rate, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlim(1, all_rates[-1])
    axes.set_ylim(0, 100)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(f"atrous rate, on a grid of {width}×{height} cells")
    axes.set_ylabel("% of the cells")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def fields_plot(fields: dict[str, torch.Tensor], columns: int = 6) -> Any:
    """Plot effective fields, on one logarithmic scale of four decades.

    Args:
        fields: name, of one or more lines → field (H,W), 0 or more; at least one.
        columns: fields side by side.
    """
    columns = min(columns, len(fields))
    rows = -(-len(fields) // columns)
    wrapped = [
        [textwrap.fill(short(line, LONGEST_NAME), 26) for line in name.split("\n")]
        for name in fields
    ]
    titles = ["\n".join(lines) for lines in wrapped]
    lines = max(title.count("\n") for title in titles) + 1
    shape = max(field.shape[0] / field.shape[1] for field in fields.values())
    height = 1.8 * shape + 0.06 + 0.2 * lines
    figure, _ = _figure(1.9 * columns, height * rows, axes=False)
    top = max(float(field.max()) for field in fields.values())
    for i, (title, field) in enumerate(zip(titles, fields.values(), strict=True), start=1):
        axes = figure.add_subplot(rows, columns, i)
        level = np.log10(np.maximum(field.cpu().numpy(), 1e-4 * top) / top)
        axes.imshow(level, cmap="magma", vmin=-4, vmax=0)
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.set_axis_off()
    return figure


def _figure(width: float, height: float, *, axes: bool = True) -> tuple[Any, Any]:
    """Return a figure of this size in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot() if axes else None
