"""The dashboards of an ablation on Weights & Biases, built with W&B's own wandb-workspaces.

Two views of the project, runs grouped by setting and the best first. Scores are of the `validate`
runs, which alone have been told crf.… and eval.…; trainings are of the `fit` runs: curves as mean
and range over the seeds, speed, memory. W&B's agents only make the latter, so its view has the
scores as well. Beside them stands a report, see wandb_report.py.
"""

from collections.abc import Sequence
from typing import Any

from deeplab_lit.ablate import wandb_panels as panels
from deeplab_lit.ablate.plan import Run
from deeplab_lit.ablate.sweep import SEED, Sweep, SweepError
from deeplab_lit.runs.loggers import PROJECT

LARGE = "Predictions"  # the section whose panels are as wide as the page


def build_dashboards(
    sweep: Sweep, entity: str, project: str, runs: Sequence[Run] = ()
) -> dict[str, Any]:
    """Return the specifications of the dashboards; nothing is sent.

    Args:
        sweep: the grid.
        entity: user or team on W&B.
        project: project on W&B.
        runs: as they are made here, to be colored by setting.

    Returns:
        Name → a wandb_workspaces.workspaces.Workspace.
    """
    import wandb_workspaces.workspaces as ws

    best = panels.best_scores(sweep)
    scores, pictures = panels.score_panels(best), [panels.image_grid(), panels.confusion_panel()]
    curves = panels.curve_panels()
    training = panels.training_panels()
    views = {
        "scores": ("validate", {"Scores": scores, LARGE: pictures}),
        "trainings": (
            "fit",
            {"Scores": scores + curves, LARGE: pictures, "Training": training},
        ),
    }
    by_group = panels.group_colors(sweep).items()
    by_run = panels.run_colors(sweep, runs).items()
    return {
        f"Ablation {sweep.name}: {what}": ws.Workspace(
            name=f"Ablation {sweep.name}: {what}",
            entity=entity,
            project=project,
            sections=[
                ws.Section(
                    name=name,
                    panels=section,
                    is_open=True,
                    layout_settings=ws.SectionLayoutSettings(columns=1 if name == LARGE else 3),
                )
                for name, section in sections.items()
            ],
            runset_settings=ws.RunsetSettings(
                filters=panels.those_of(sweep, job_type),
                groupby=[ws.Config(name) for name in sweep.grid],
                group_colors={ws.GroupPath(*path): color for path, color in by_group},
                run_settings={id: ws.RunSettings(color=color) for id, color in by_run},
                order=[ws.Ordering(ws.Summary(name), ascending=False) for name in best],
                pinned_columns=[*(f"summary:{name}" for name in best), f"config:{SEED}"],
            ),
        )
        for what, (job_type, sections) in views.items()
    }


def save_dashboards(
    sweep: Sweep, runs: Sequence[Run] = (), command: Sequence[str] = ()
) -> dict[str, str]:
    """Build the dashboards and the draft of a report on W&B's server.

    Args:
        sweep: the grid; where it names no entity, that of the user who is logged in counts.
        runs: all runs of it, as they are made here.
        command: words of the command line that makes them.

    Returns:
        Name → URL.

    Raises:
        SweepError: the user is not logged in, the server does not answer or refuses.
    """
    import wandb

    from deeplab_lit.ablate.wandb_report import build_report

    project = sweep.project or PROJECT
    try:
        entity = sweep.entity or wandb.Api().default_entity
        if entity is None:
            raise ValueError("the account has no entity")
        views = build_dashboards(sweep, entity, project, runs)
        report = build_report(sweep, entity, project, runs, command)
        urls = {name: view.save().url for name, view in views.items()}
        return urls | {f"{report.title}: report": report.save(draft=True).url}
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise SweepError(
            f"W&B did not take the dashboards ({error}): log in with `wandb login`, and send runs "
            f"to the project {project} first (`wandb sync`)"
        ) from error
