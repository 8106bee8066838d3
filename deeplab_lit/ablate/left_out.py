"""What is not in a report, and why."""

from collections.abc import Sequence

from deeplab_lit.ablate.plan import Run
from deeplab_lit.ablate.process import failure
from deeplab_lit.ablate.progress import is_finished
from deeplab_lit.ablate.results import Result, ResultError, read_result


def left_out(runs: Sequence[Run], results: Sequence[Result], labels: Sequence[str]) -> list[str]:
    """Sentences on the runs without a result: those not done, those failed, damaged files.

    Args:
        runs: all of the ablation.
        results: those that are there.
        labels: of all settings.
    """
    done = {result.run for result in results}
    missing, names = 0, {}
    for run in runs:
        if run in done:
            continue
        why = _why(run)
        if why is None:
            missing += 1
        else:
            names.setdefault(why, []).append(f"“{labels[run.setting]}”, seed {run.seed}")
    said = [f"Left out: {'; '.join(own)}: {why}." for why, own in names.items()]
    if missing:
        own = "1 run is" if missing == 1 else f"{missing} runs are"
        said.append(f"{own} not done yet and left out.")
    return said


def _why(run: Run) -> str | None:
    """What stopped a run; null if it is only not done yet."""
    try:
        read_result(run)
    except ResultError as error:
        scored = str(run.validate.folder) in str(error)
        what = run.validate.folder if scored else f"{run.fit.folder}*"
        return f"{error}; delete {what} to have it made again"
    for step, what in ((run.fit, "training"), (run.validate, "validation")):
        if not is_finished(step) and (why := failure(step)) is not None:
            return f"its {what} failed: {why}"
    return None
