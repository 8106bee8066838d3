"""Sentences on what an ablation says, and what it does not."""

import math
from collections.abc import Iterable, Mapping, Sequence

from deeplab_lit.ablate.plan import Run
from deeplab_lit.ablate.process import failure_of
from deeplab_lit.ablate.results import Result, ResultError, is_finished
from deeplab_lit.ablate.table import Row, spread, verdict
from deeplab_lit.text import plural

FEW_IMAGES = 30  # below, the bootstrap's percentiles lie visibly too close together


def findings(rows: Sequence[Row]) -> list[str]:
    """Return sentences on the result, and on what it must not be taken for.

    Args:
        rows: rows of the table, at least one; the baseline first if it is done.
    """
    if rows[0].results[0].run.setting == 0:
        mean = spread(rows[0].compared())
        when = " after the CRF" if rows[0].after_crf else ""
        score = (
            "has a score that is not known"
            if mean == "–"
            else f"has mIoU{rows[0].subset} {mean} %{when}"
        )
        sentences = [f"The baseline, {_quoted(rows[0])}, {score}."]
    else:
        sentences = ["The baseline has no result, so nothing is compared."]
    compared = [(row, row.difference) for row in rows if row.difference is not None]
    clear = [(row, diff) for row, diff in compared if diff.verdict in ("better", "worse")]
    sentences += [
        f"{_quoted(row)} is {verdict(difference)}: {difference.points} points."
        for row, difference in sorted(clear, key=lambda pair: -pair[1].mean)
    ]
    noise = [_quoted(row) for row, diff in compared if diff.verdict == "within noise"]
    if noise:
        sentences.append(f"Within noise of the baseline: {', '.join(noise)}.")
    unknown: dict[str, list[str]] = {}
    for row, difference in compared:
        if difference.verdict == "unknown":
            name = f"{_quoted(row)} ({difference.points} points)"
            unknown.setdefault(difference.missing, []).append(name)
    sentences += [f"Unknown, {reason}: {', '.join(names)}." for reason, names in unknown.items()]
    without_interval = [
        _quoted(row) for row, diff in compared if diff.low is None and not math.isnan(diff.mean)
    ]
    return sentences + _limits(rows, without_interval, some_noise=bool(noise))


def _limits(rows: Sequence[Row], without_interval: Sequence[str], *, some_noise: bool) -> list[str]:
    """Return sentences on how much seeds and images can tell."""
    sentences = []
    seeds = [len(row.results) for row in rows]
    if min(seeds) < 2:
        whose = "All settings have" if max(seeds) < 2 else "Some settings have"
        sentences.append(
            f"{whose} one seed only: how much another seed would change is unknown, and an "
            "interval over images does not say it."
        )
    elif min(seeds) == 2 and some_noise:
        sentences.append(
            "Two seeds tell only large differences from noise: “within noise” is not “equal”."
        )
    images = {len(r.images["ids"]) for row in rows for r in row.results if "ids" in r.images}
    if images and min(images) < FEW_IMAGES:
        sentences.append(
            f"The scores are of {plural(min(images), 'validation image')}: an interval over so "
            "few is narrower than it should be."
        )
    results = [r for row in rows for r in row.results]
    scored = [r.scored(rows[0].after_crf) for r in results]
    ious = {"": [part["iou"] for part in scored]}
    for subset in rows[0].subsets:
        found = [part.get("subsets", {"iou": {}})["iou"].get(subset) for part in scored]
        ious[subset] = [iou for iou in found if iou]
    for subset, runs in ious.items():
        present = [sum(iou is not None for iou in classes.values()) for classes in runs]
        fewest = min(present, default=0)
        if 0 < fewest < len(runs[0]):
            sentences.append(
                f"mIoU{subset} is the mean over {fewest} of {plural(len(runs[0]), 'class')}: the "
                "others are neither in the truth nor predicted, at least in one run."
            )
    if rules := unique(r.rule for r in results if r.rule):
        differs = ", so not all of them compare" if len(rules) > 1 else ""
        names = " and ".join(f"mIoU{subset}" for subset in rows[0].subsets)
        sentences.append(f"{names} by --eval.subsets {' or '.join(rules)}{differs}.")
    if without_interval:
        sentences.append(
            f"There is no interval over images for {', '.join(without_interval)}: that takes "
            "counts (images.npz) of the same images, two or more, from all seeds."
        )
    return sentences


def left_out(
    runs: Sequence[Run],
    results: Sequence[Result],
    damaged: Mapping[Run, ResultError],
    labels: Sequence[str],
) -> list[str]:
    """Return sentences on the runs without a result: unfinished, failed, damaged.

    Args:
        runs: all runs of the ablation.
        results: the results that there are.
        damaged: the error of each run with a damaged file.
        labels: labels of all settings.
    """
    done = {result.run for result in results}
    unfinished = 0
    stopped: dict[str, list[str]] = {}
    for run in runs:
        if run in done:
            continue
        reason = _damage(run, damaged[run]) if run in damaged else _failure(run)
        if reason is None:
            unfinished += 1
        else:
            name = f"“{labels[run.setting]}”, seed {run.seed}"
            stopped.setdefault(reason, []).append(name)
    sentences = [f"Left out: {'; '.join(names)}: {reason}." for reason, names in stopped.items()]
    if unfinished:
        some = "1 run is" if unfinished == 1 else f"{unfinished} runs are"
        sentences.append(f"{some} not done yet and left out.")
    return sentences


def _damage(run: Run, error: ResultError) -> str:
    """Return what is damaged, and what to delete."""
    in_scoring = str(run.validate.folder) in str(error)
    folder = run.validate.folder if in_scoring else f"{run.fit.folder}*"
    return f"{error}; delete {folder} to have it made again"


def _failure(run: Run) -> str | None:
    """Return why a run failed; None: it is only not done yet."""
    for step, name in ((run.fit, "training"), (run.validate, "validation")):
        if not is_finished(step) and (reason := failure_of(step)) is not None:
            return f"its {name} failed: {reason}"
    return None


def origin(rows: Sequence[Row]) -> str:
    """Return a sentence on what all runs were made with, and one where they are not alike."""
    records = [record for row in rows for r in row.results for record in (r.fit, r.validation)]
    records = [record for record in records if record]
    versions = unique(
        ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        for record in records
    )
    commits = unique(record.get("git_commit") or "unknown" for record in records)
    devices = unique(record["device"] for record in records)
    text = f"{' / '.join(versions)}; commit {', '.join(commits)}; on {' and '.join(devices)}."
    steps = sorted({r.fit["steps"] for row in rows for r in row.results if "steps" in r.fit})
    if steps:
        text += f" Trained for {' or '.join(f'{number:,}' for number in steps)} optimizer steps."
    kinds = {"versions": versions, "commits": commits, "devices": devices}
    if several := [f"{len(values)} {kind}" for kind, values in kinds.items() if len(values) > 1]:
        text += f" Not all runs were made alike: {', '.join(several)}."
    return text


def table_note(rows: Sequence[Row]) -> str:
    """Return sentences on what the columns of the table mean, and its verdict.

    Args:
        rows: rows of the table, at least one.
    """
    when = ", after the CRF" if rows[0].after_crf else ""
    devices = " and ".join(unique(r.fit["device"] for row in rows for r in row.results))
    return (
        "mIoU is the mean intersection over union on the validation images, in percent; ± is the "
        f"standard deviation between seeds. The difference is to the first row{when}, with the "
        "interval that holds 95 % of what it becomes when the validation images are drawn anew "
        "(paired bootstrap). “Within noise” says that the interval contains zero, or that seeds "
        "alone may differ as much: p, the probability of such a difference between seeds (Welch’s "
        "t-test; paired where rows share their trainings; corrected for the number of rows after "
        "Holm), is above 5 %. It does not say that settings are equal: there may be too few seeds "
        "or images to tell. With one seed p is unknown, and so is the verdict, whatever the "
        "interval. Scores are those of the best checkpoint of each training, which was chosen on "
        "these same images, so all rows may be somewhat high. Parameters are the learnable ones; "
        "GMAC are 10⁹ multiply-adds of the convolutions for one training crop, at all scales of "
        "the network (counted by torch.utils.flop_counter, whose FLOPs are twice as many); "
        f"images/s and seconds are of the training, on {devices}."
    )


def unique(values: Iterable[str]) -> list[str]:
    """Return each value once, in the order of their first places."""
    return list(dict.fromkeys(values))


def _quoted(row: Row) -> str:
    return f"“{row.label}”"
