"""The curves of a training: loss, scores and learning rates over the optimizer steps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab_lit.pictures.charts import legend

Points = Sequence[tuple[int, float]]  # (optimizer steps done, value)


class Curves(NamedTuple):
    """A chart of a training.

    Attributes:
        title: of the chart, with the unit.
        lines: name → points; at least one line, and in each at least one point.
        is_log: the values are drawn on a logarithmic scale.
    """

    title: str
    lines: dict[str, list[tuple[int, float]]]
    is_log: bool = False

    def in_words(self) -> str:
        """Say what the chart shows, for readers who do not see it."""
        parts = []
        for name, points in self.lines.items():
            (first, start), (last, end) = points[0], points[-1]
            best = f", at most {max(value for _, value in points):.4g}" if len(points) > 2 else ""
            begins, ends = f"{name} {start:.4g} at step {first:,}", f", {end:.4g} at step {last:,}"
            parts.append(begins + (f"{ends}{best}" if len(points) > 1 else ""))
        return f"{self.title}: {'; '.join(parts)}"


def curves_of(metrics: Mapping[str, Points]) -> list[Curves]:
    """Return the charts of a training: what it has not logged is left out.

    Args:
        metrics: column of metrics.csv → points, as `runs.csv_logger.read_metrics` gives them.
    """
    rates = {name: f"lr/{name}" for name in _below("lr/", metrics)}
    scores = {"network": "val/miou", "after the CRF": "val_crf/miou"}
    charts = [
        Curves("training loss", _known({"loss": "train/loss"}, metrics)),
        Curves("mIoU on the validation images, %", _known(scores, metrics, 100)),
        Curves("learning rate", _merged(_known(rates, metrics)), is_log=True),
    ]
    return [chart for chart in charts if chart.lines]


def _below(prefix: str, metrics: Mapping[str, Points]) -> list[str]:
    return [name.removeprefix(prefix) for name in metrics if name.startswith(prefix)]


def _known(
    columns: Mapping[str, str], metrics: Mapping[str, Points], factor: float = 1
) -> dict[str, list[tuple[int, float]]]:
    """Return the finite points of each column that has some."""
    lines = {
        name: [
            (step, factor * value) for step, value in metrics.get(column, ()) if np.isfinite(value)
        ]
        for name, column in columns.items()
    }
    return {name: points for name, points in lines.items() if points}


def _merged(lines: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """Return lines that are the same as one, under all of their names."""
    names: dict[tuple, list[str]] = {}
    for name, points in lines.items():
        names.setdefault(tuple(points), []).append(name)
    return {", ".join(group): list(points) for points, group in names.items()}


def curves_plot(curves: Curves, chosen: int | None) -> Any:
    """Plot the curves of a chart as a Matplotlib figure, small enough for a phone's screen.

    Args:
        curves: of a training.
        chosen: optimizer step of the weights that are scored, marked by a line; None: no mark.
    """
    from matplotlib.figure import Figure

    figure = Figure((4.4, 2.9))
    figure.subplots_adjust(left=0.15, right=0.97, bottom=0.16, top=0.89)  # no search for a layout
    axes = figure.add_subplot()
    handles = []
    for points in curves.lines.values():
        steps, values = zip(*points, strict=True)
        marker = "." if len(points) <= 30 else ""  # of a few validations each is seen
        handles += axes.plot(steps, values, linewidth=1.3, marker=marker)
    names = list(curves.lines)
    if chosen is not None:
        handles.append(axes.axvline(chosen, color="black", linewidth=1, linestyle=":"))
        names.append(f"step {chosen:,}, scored")
    if curves.is_log and all(value > 0 for line in curves.lines.values() for _, value in line):
        axes.set_yscale("log")
    axes.set_title(curves.title, size=10, loc="left")
    axes.set_xlabel("optimizer step", size=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    legend(axes, handles, names, fontsize=8, loc="best", framealpha=0.8)
    return figure
