"""report.html of a run: what came out, how the training went, and what was run.

It is one file that holds all it shows, made of what the run has left in its folder; its words and
layout are in run_report.html.j2.
"""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit.atomic import atomic_write
from deeplab_lit.cli.run_facts import (
    About,
    command_of,
    facts,
    notes,
    scores_of,
    subject_of,
    training_in_words,
)
from deeplab_lit.cli.score_tables import (
    BANDS,
    NO_INSTANCES,
    cityscapes_lines,
    score_lines,
    trimap_lines,
)
from deeplab_lit.cli.screen import scored
from deeplab_lit.pictures.curves import Curves, curves_of, curves_plot
from deeplab_lit.pictures.web_page import render
from deeplab_lit.runs.csv_logger import read_metrics
from deeplab_lit.text import say

NAME = "report.html"
# sheets of images in a run's folder → heading, and what they show
SHEETS = {
    "worst_best.png": (
        "The worst and the best images",
        "The images whose own mIoU is lowest, and then those where it is highest, each with its "
        "truth and what was predicted.",
    ),
    "predictions.png": (
        "Images spread over the split",
        "Chosen by their place, not by their score, each with its truth and what was predicted.",
    ),
}
CONFUSIONS = {"confusion.png": "before the CRF", "confusion_crf.png": "after the CRF"}


@rank_zero_only
def leave_report(folder: Path, about: About) -> None:
    """Write report.html into the folder of a run; where it cannot be made, say so and go on.

    Args:
        folder: of the run. Without results.json, which is written before, there is no page.
        about: the run.
    """
    if not (folder / "results.json").is_file():
        return
    try:
        content = page(folder, about)
        with atomic_write(folder / NAME) as place:
            place.write_text(content, "utf-8")
    except Exception as error:  # hours of work may be behind it: what came out must still be said
        say(f"WARNING: {folder / NAME} was not written ({type(error).__name__}: {error})")


def page(folder: Path, about: About) -> str:
    """Return report.html.

    Args:
        folder: of the run.
        about: the run.
    """
    results = json.loads((folder / "results.json").read_text("utf-8"))
    scores = scores_of(about, results)
    trained = _record(about.training)
    curves, no_curves = _curves(about.training)
    first = min((line[0][0] for chart in curves for line in chart.lines.values()), default=0)
    cityscapes = scores.get("cityscapes", {})
    sheets = [(*words, folder / name) for name, words in SHEETS.items()]
    confusions = [(words, folder / name) for name, words in CONFUSIONS.items()]
    context = {
        "about": about,
        "data": results["scored_on"],
        "scores": scores,
        "subject": subject_of(about, results),
        "scored": scored(scores),
        "final_step": results["final"]["step"],
        "table": score_lines(scores),
        "notes": notes(about, results, trained),
        "cityscapes": cityscapes_lines(cityscapes),
        "no_instances": "" if "iiou" in cityscapes else NO_INSTANCES,
        "bands": BANDS,
        "trimap": trimap_lines(scores["trimap"], BANDS) if "trimap" in scores else [],
        "trimap_picture": folder / "trimap.png",
        "curves": [(curves_plot(chart, about.step), chart.in_words()) for chart in curves],
        "no_curves": no_curves,
        "trained": training_in_words(trained, first),
        "sheets": [sheet for sheet in sheets if sheet[-1].is_file()],
        "confusions": [matrix for matrix in confusions if matrix[-1].is_file()],
        "facts": facts(about, results),
        "command": command_of(about.verb, about.typed),
        "following": command_of(about.following[0], about.following[1:]) if about.following else "",
        "files": _files(folder),
    }
    return render(Path(__file__).with_name("run_report.html.j2"), context)


def _files(folder: Path) -> list[str]:
    """Return the names of the files beside the page, without hidden ones, as locks."""
    names = (path.name for path in folder.iterdir() if path.is_file())
    return sorted(name for name in names if name != NAME and not name.startswith("."))


def _record(training: Path | None) -> dict[str, Any]:
    """Return results.json of the training; empty where there is none, or none of ours."""
    if training is None:
        return {}
    try:
        record = dict(json.loads((training / "results.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
    return record if {"steps", "device"} <= record.keys() else {}


def _curves(training: Path | None) -> tuple[list[Curves], str]:
    """Return the charts of the training; or none, and why."""
    if training is None:
        return [], "Masks were scored, and how they were made is not known: there are no curves."
    path = training / "metrics.csv"
    if not path.is_file():
        return [], (
            f"These weights do not lie in the folder of a run of fit (there is no {path}): how "
            "their training went is not known."
        )
    try:
        curves = curves_of(read_metrics(path))
    except (ValueError, TypeError, LookupError, OSError) as error:
        return [], f"{path} is damaged: {error}."
    return curves, "" if curves else f"{path} has nothing to draw."
