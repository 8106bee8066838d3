"""The dashboard of an ablation on Weights & Biases, built with W&B's own wandb-workspaces.

One view of the project: runs of this ablation grouped by setting, the best mIoU as a column and as
bars, curves as mean and range over the seeds, classes, speed, memory, pictures.
"""

from typing import Any

from deeplab_lit.ablate.sweep import SEED, Sweep, SweepError
from deeplab_lit.training.loggers import PROJECT


def build_dashboard(sweep: Sweep, entity: str, project: str) -> Any:
    """The specification; nothing is sent.

    Args:
        sweep: the grid.
        entity: W&B's: user or team.
        project: W&B's.

    Returns:
        A wandb_workspaces.workspaces.Workspace.

    Raises:
        SweepError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise SweepError(
            "the dashboard needs wandb-workspaces: pip install wandb-workspaces"
        ) from error

    def curves(title: str, *metrics: str) -> Any:
        over_seeds = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
        return wr.LinePlot(title=title, x="Step", y=list(metrics), **over_seeds)

    best = ws.Summary("val/miou.max")
    scores = [
        wr.BarPlot(title="Best mIoU", metrics=["val/miou.max"], groupby_aggfunc="mean"),
        curves("mIoU", "val/miou"),
        curves("Pixel accuracy", "val/pixel_accuracy"),
        wr.LinePlot(title="IoU of each class", x="Step", metric_regex="val/iou/.*"),
    ]
    training = [
        curves("Loss", "train/loss"),
        wr.LinePlot(title="Learning rates", x="Step", metric_regex="lr/.*"),
        curves("Images a second", "train/images_per_second"),
        curves("GPU memory, GiB", "train/memory_gib"),
    ]
    pictures = [wr.MediaBrowser(title="Validation images", media_keys=["val/images"])]
    return ws.Workspace(
        name=f"Ablation {sweep.name}",
        entity=entity,
        project=project,
        sections=[
            ws.Section(name="Scores", panels=scores, is_open=True),
            ws.Section(name="Predictions", panels=pictures, is_open=True),
            ws.Section(name="Training", panels=training),
        ],
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == sweep.name, ws.Metric("JobType") == "fit"],
            groupby=[ws.Config(name) for name in sweep.grid],
            order=[ws.Ordering(best, ascending=False)],
            pinned_columns=["summary:val/miou.max", f"config:{SEED}"],
        ),
    )


def save_dashboard(sweep: Sweep, entity: str | None) -> str:
    """Build it on W&B's server.

    Args:
        sweep: the grid.
        entity: W&B's: user or team; null for the user who is logged in.

    Returns:
        Its address.

    Raises:
        SweepError: the user is not logged in, the server does not answer or refuses.
    """
    import wandb

    project = sweep.project or PROJECT
    try:
        entity = entity or wandb.Api().default_entity
        workspace = build_dashboard(sweep, entity, project)
        return workspace.save().url
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise SweepError(
            f"W&B did not take the dashboard ({error}): log in with `wandb login`, and send runs "
            f"to the project {project} first (`wandb sync`)"
        ) from error
