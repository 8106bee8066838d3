"""Build the parts of an ablation's dashboards and report on Weights & Biases.

Which runs, in which colors, and the panels that show them, built with W&B's own wandb-workspaces.
"""

import json
from collections.abc import Sequence
from typing import Any

from deeplab_lit.ablate.plan import Run
from deeplab_lit.ablate.plots import setting_color
from deeplab_lit.ablate.sweep import Sweep
from deeplab_lit.runs.loggers import run_id
from deeplab_lit.scoring.media import IMAGE_TABLE


def best_scores(sweep: Sweep) -> list[str]:
    """Return W&B's summaries of the scores, the one that settings are compared by first."""
    metrics = [f"{prefix}/miou{sweep.subset}" for prefix in ("val", "val_crf")]
    return [f"{metric}.max" for metric in (metrics[::-1] if sweep.after_crf else metrics)]


def those_of(sweep: Sweep, job_type: str) -> Any:
    """Return the filter for the runs of an ablation: its trainings, or its validations.

    Args:
        sweep: the grid.
        job_type: "fit" or "validate".
    """
    import wandb_workspaces.workspaces as ws

    return ws.And(ws.Metric("Group") == sweep.name, ws.Metric("JobType") == job_type)


def group_colors(sweep: Sweep) -> dict[tuple[str, ...], str]:
    """Return the color of each setting, that of its curve in report.html, by its values as text.

    Texts are as JSON, strings without quotes. How W&B writes the values of a group is not
    documented, so that `run_colors` says the same again for each run.
    """
    paths = [tuple(map(_text, setting.values())) for setting in sweep.settings()]
    return {path: setting_color(index) for index, path in enumerate(paths)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def run_colors(sweep: Sweep, runs: Sequence[Run]) -> dict[str, str]:
    """Return the color of each run, that of its setting, by W&B's id; the first where it has two.

    Args:
        sweep: the grid.
        runs: runs as they are made here; W&B's agents give theirs other names.
    """
    colors: dict[str, str] = {}
    for run in runs:
        for step in (run.fit, run.validate):
            colors.setdefault(run_id(sweep.name, step.folder.name), setting_color(run.setting))
    return colors


def score_panels(best: list[str]) -> list[Any]:
    """Return panels of the scores.

    Args:
        best: W&B's summaries of them.
    """
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.BarPlot(title="Best mIoU", metrics=[*best], groupby_aggfunc="mean"),
        curves("IoU of each class", "val(_crf)?/iou/.*"),
    ]


def curve_panels() -> list[Any]:
    """Return panels of the scores over a training."""
    return [
        curves("mIoU", "val(_crf)?/miou.*"),
        curves("Pixel accuracy", "val(_crf)?/pixel_accuracy"),
    ]


def training_panels() -> list[Any]:
    """Return panels of loss, learning rates, speed and memory."""
    return [
        curves("Loss", "train/loss"),
        curves("Learning rates", "lr/.*"),
        curves("Images a second", "train/images_per_second"),
        curves("Peak memory, GiB", "train/(resident|gpu)_memory_gib"),
    ]


def curves(title: str, metrics: str) -> Any:
    """Return a panel of curves: mean of the seeds, and the range from low to high.

    Args:
        title: above it.
        metrics: regular expression for their names.
    """
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(
        title=title,
        x="Step",
        metric_regex=f"^{metrics}$",
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
    )


def image_grid(**layout: int) -> Any:
    """Return a panel of the same validation images under every run: a row a run, a column an image.

    Args:
        layout: place and size, as of wandb_workspaces.reports.v2.Layout.
    """
    import wandb_workspaces.reports.v2 as wr

    return wr.MediaBrowser(
        title="Validation images",
        media_keys=["val/images"],
        grid_x_axis="index",
        grid_y_axis="run",
        layout=wr.Layout(**layout),
    )


def confusion_panel() -> Any:
    """Return the chart of wandb.plot.confusion_matrix, on our table."""
    import wandb_workspaces.reports.v2 as wr

    table = {"summaryTable": {"tableKey": "val/confusion"}}
    return wr.CustomChart(
        query={"id": None, "name": None, "_defaultColorIndex": None, **table},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields={"Actual": "true", "Predicted": "predicted", "nPredictions": "pixels"},
        chart_strings={"title": "Confusion matrix of the network, pixels"},
    )


def image_table_panel(**layout: int) -> Any:
    """Return the table of images with the IoU of each class, to sort and to filter.

    Args:
        layout: place and size, as of wandb_workspaces.reports.v2.Layout.
    """
    import wandb_workspaces.reports.v2 as wr

    return wr.WeavePanelSummaryTable(table_name=IMAGE_TABLE, layout=wr.Layout(**layout))
