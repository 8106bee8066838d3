"""The dashboards of an ablation on Weights & Biases, built with W&B's own wandb-workspaces.

Two views of the project, runs grouped by setting and the best first. Scores are of the `validate`
runs, which alone have been told crf.… and eval.…; trainings are of the `fit` runs: curves as mean
and range over the seeds, speed, memory. W&B's agents only make the latter, so its view has the
scores as well.
"""

from typing import Any

from deeplab_lit.ablate.sweep import SEED, Sweep, SweepError
from deeplab_lit.runs.loggers import PROJECT


def build_dashboards(sweep: Sweep, entity: str, project: str) -> dict[str, Any]:
    """Return the specifications of the dashboards; nothing is sent.

    Args:
        sweep: the grid.
        entity: user or team on W&B.
        project: project on W&B.

    Returns:
        Name → a wandb_workspaces.workspaces.Workspace.
    """
    import wandb_workspaces.workspaces as ws

    metrics = [f"{prefix}/miou{sweep.subset}" for prefix in ("val", "val_crf")]
    metrics = metrics[::-1] if sweep.after_crf else metrics
    best = [f"{metric}.max" for metric in metrics]
    scores, curves, predictions, training = _panels(best)
    views = {
        "scores": ("validate", {"Scores": scores, "Predictions": predictions}),
        "trainings": (
            "fit",
            {"Scores": scores + curves, "Predictions": predictions, "Training": training},
        ),
    }
    return {
        f"Ablation {sweep.name}: {what}": ws.Workspace(
            name=f"Ablation {sweep.name}: {what}",
            entity=entity,
            project=project,
            sections=[
                ws.Section(name=name, panels=panels, is_open=True)
                for name, panels in sections.items()
            ],
            runset_settings=ws.RunsetSettings(
                filters=ws.And(ws.Metric("Group") == sweep.name, ws.Metric("JobType") == job_type),
                groupby=[ws.Config(name) for name in sweep.grid],
                order=[ws.Ordering(ws.Summary(name), ascending=False) for name in best],
                pinned_columns=[*(f"summary:{name}" for name in best), f"config:{SEED}"],
            ),
        )
        for what, (job_type, sections) in views.items()
    }


def _panels(best: list[str]) -> list[list[Any]]:
    """Return panels of scores, their curves, predictions and training.

    Args:
        best: W&B's summaries of the scores.
    """
    import wandb_workspaces.reports.v2 as wr

    def curves(title: str, metrics: str) -> Any:
        return wr.LinePlot(
            title=title,
            x="Step",
            metric_regex=f"^{metrics}$",
            groupby_aggfunc="mean",  # over seeds
            groupby_rangefunc="minmax",
        )

    table = {"summaryTable": {"tableKey": "val/confusion"}}
    return [
        [
            wr.BarPlot(title="Best mIoU", metrics=[*best], groupby_aggfunc="mean"),
            curves("IoU of each class", "val(_crf)?/iou/.*"),
        ],
        [
            curves("mIoU", "val(_crf)?/miou.*"),
            curves("Pixel accuracy", "val(_crf)?/pixel_accuracy"),
        ],
        [
            wr.MediaBrowser(title="Validation images", media_keys=["val/images"]),
            wr.CustomChart(  # the chart of wandb.plot.confusion_matrix, on our table
                query={"id": None, "name": None, "_defaultColorIndex": None, **table},
                chart_name="wandb/confusion_matrix/v1",
                chart_fields={"Actual": "true", "Predicted": "predicted", "nPredictions": "pixels"},
                chart_strings={"title": "Confusion matrix of the network, pixels"},
            ),
        ],
        [
            curves("Loss", "train/loss"),
            curves("Learning rates", "lr/.*"),
            curves("Images a second", "train/images_per_second"),
            curves("Peak memory, GiB", "train/(resident|gpu)_memory_gib"),
        ],
    ]


def save_dashboards(sweep: Sweep) -> dict[str, str]:
    """Build the dashboards on W&B's server.

    Args:
        sweep: the grid; where it names no entity, that of the user who is logged in counts.

    Returns:
        Name → URL.

    Raises:
        SweepError: the user is not logged in, the server does not answer or refuses.
    """
    import wandb

    project = sweep.project or PROJECT
    try:
        entity = sweep.entity or wandb.Api().default_entity
        if entity is None:
            raise ValueError("the account has no entity")
        views = build_dashboards(sweep, entity, project)
        return {name: view.save().url for name, view in views.items()}
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise SweepError(
            f"W&B did not take the dashboards ({error}): log in with `wandb login`, and send runs "
            f"to the project {project} first (`wandb sync`)"
        ) from error
