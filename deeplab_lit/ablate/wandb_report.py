"""The report of an ablation on Weights & Biases: report.html's words, beside the runs themselves.

Prose and tables are of the runs on this machine, as `ablate --report` reads them; panels ask W&B's
server for those that were sent there.
"""

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplab_lit.ablate import wandb_panels as panels
from deeplab_lit.ablate.plan import Run, labels_of
from deeplab_lit.ablate.report import summarize
from deeplab_lit.ablate.sweep import Sweep
from deeplab_lit.ablate.table import Row, markdown
from deeplab_lit.ablate.words import findings, origin, table_note

NAMES = {"validate": "Validations", "fit": "Trainings"}  # of sets of runs, by job type
LONGEST_TITLE = 128  # W&B refuses longer ones
WIDE = {"w": 24, "h": 14}  # as wide as a report


def build_report(
    sweep: Sweep, entity: str, project: str, runs: Sequence[Run] = (), command: Sequence[str] = ()
) -> Any:
    """Return the specification of the report, a wandb_workspaces.reports.v2.Report.

    Args:
        sweep: the grid.
        entity: user or team on W&B.
        project: project on W&B.
        runs: all runs of it, as they are made here.
        command: words of the command line that makes them.
    """
    import wandb_workspaces.reports.v2 as wr

    best = panels.best_scores(sweep)
    by_run = panels.run_colors(sweep, runs)

    def grid(job_type: str, shown: list[Any], groupby: Sequence[str] = ()) -> Any:
        """Return panels on the runs of a job type, the best first."""
        runset = wr.Runset(
            entity=entity,
            project=project,
            name=NAMES[job_type],
            filters=panels.those_of(sweep, job_type),
            groupby=[f"config.{name}" for name in groupby],
            order=[wr.OrderBy(name=wr.SummaryMetric(name)) for name in best],
        )
        colors: dict[Any, Any] = dict(by_run)
        if groupby:
            colors |= _group_colors(sweep, NAMES[job_type])
        return wr.PanelGrid(runsets=[runset], panels=shown, custom_run_colors=colors)

    table, absent = summarize(sweep, runs)
    typed = [wr.CodeBlock(code=shlex.join(command), language=None)] if command else []
    blocks = [
        wr.H1(text="Question"),
        wr.P(text=sweep.description or f"What does {', '.join(sweep.grid)} change?"),
        wr.P(text="Settings, of which the first is the baseline:"),
        wr.UnorderedList(items=[*labels_of(sweep)]),
        *typed,
        wr.H1(text="What came out"),
        *_results(table, absent),
        wr.H1(text="Scores"),
        grid("validate", panels.score_panels(best), groupby=list(sweep.grid)),
        wr.H1(text="The same images under every run"),
        wr.P(text="Truth and predictions are masks over each image."),
        grid("validate", [panels.image_grid(**WIDE)]),
        wr.H1(text="Image by image"),
        wr.P(
            text="The heads of the columns sort and filter. A class has no value on an image where "
            "it is neither in the truth nor predicted."
        ),
        grid("validate", [panels.image_table_panel(**WIDE)]),
        wr.H1(text="While it was trained"),
        grid("fit", panels.curve_panels() + panels.training_panels(), groupby=list(sweep.grid)),
        *([wr.H1(text="How it was made"), wr.P(text=origin(table))] if table else []),
    ]
    title = f"Ablation {sweep.name}"[:LONGEST_TITLE]
    return wr.Report(entity=entity, project=project, title=title, blocks=blocks, width="fluid")


def _group_colors(sweep: Sweep, runset: str) -> dict[Any, str]:
    """Return the color of each setting under its key in the panels of a set of runs."""
    import wandb_workspaces.reports.v2 as wr

    colors = {}
    for path, color in panels.group_colors(sweep).items():
        pairs = zip(sweep.grid, path, strict=True)
        keys = tuple(wr.RunsetGroupKey(key=wr.Config(name), value=text) for name, text in pairs)
        colors[wr.RunsetGroup(runset_name=runset, keys=keys)] = color
    return colors


def _results(table: Sequence[Row], absent: Sequence[str]) -> list[Any]:
    """Return findings, table and class frequencies as blocks.

    Args:
        table: rows of the table; none where no run is done on this machine.
        absent: sentences on what is left out.
    """
    import wandb_workspaces.reports.v2 as wr

    if not table:
        reason = "No run is done on the machine that built this report: the panels below say more."
        return [wr.P(text=reason), *(wr.P(text=sentence) for sentence in absent)]
    blocks = [
        wr.UnorderedList(items=[*findings(table), *absent]),
        wr.MarkdownBlock(text=markdown(table)),
        wr.P(text=table_note(table)),
    ]
    frequencies = class_frequencies(table)
    if frequencies:
        escaped = {name.replace("|", r"\|"): shares for name, shares in frequencies.items()}
        lines = ["| class | pixels, % | images, % |", "| --- | ---: | ---: |"]
        lines += [
            f"| {name} | {100 * pixels:.2f} | {100 * images:.1f} |"
            for name, (pixels, images) in escaped.items()
        ]
        blocks += [
            wr.H2(text="Classes of the validation images"),
            wr.P(
                text="Share of the labeled pixels that are of a class, and of the images with it:"
            ),
            wr.MarkdownBlock(text="\n".join(lines)),
        ]
    return blocks


def class_frequencies(table: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Return each class's share of the labeled pixels, and the share of images that have it.

    Of the truth of the validation images, by the counts of the first run that left some; empty
    where none did.

    Args:
        table: rows of the table.
    """
    counted = [r for row in table for r in row.results if "counts" in r.images]
    if not counted:
        return {}
    true = counted[0].images["counts"][:, 1]  # (N,C) pixels
    pixels, images = true.sum(0) / max(true.sum(), 1), np.mean(true > 0, axis=0)
    shares = zip(pixels.tolist(), images.tolist(), strict=True)
    return dict(zip(counted[0].scores["iou"], shares, strict=True))
