"""What is not in a report, and why."""

from collections.abc import Sequence

from deeplab_lit.ablate.plan import Trial
from deeplab_lit.ablate.process import failure
from deeplab_lit.ablate.progress import is_finished
from deeplab_lit.ablate.results import Result, ResultError, read_result


def left_out(
    trials: Sequence[Trial], results: Sequence[Result], labels: Sequence[str]
) -> list[str]:
    """Sentences on the trials without a result: those not done, those failed, damaged files.

    Args:
        trials: all of the ablation.
        results: those that are there.
        labels: of all settings.
    """
    done = {result.trial for result in results}
    missing, names = 0, {}
    for trial in trials:
        if trial in done:
            continue
        why = _why(trial)
        if why is None:
            missing += 1
        else:
            names.setdefault(why, []).append(f"“{labels[trial.setting]}”, seed {trial.seed}")
    said = [f"Left out: {'; '.join(own)}: {why}." for why, own in names.items()]
    if missing:
        own = "1 trial is" if missing == 1 else f"{missing} trials are"
        said.append(f"{own} not done yet and left out.")
    return said


def _why(trial: Trial) -> str | None:
    """What stopped a trial; null if it is only not done yet."""
    try:
        read_result(trial)
    except ResultError as error:
        scored = str(trial.validate.folder) in str(error)
        what = trial.validate.folder if scored else f"{trial.fit.folder}*"
        return f"{error}; delete {what} to have it made again"
    for step, what in ((trial.fit, "training"), (trial.validate, "validation")):
        if not is_finished(step) and (why := failure(step)) is not None:
            return f"its {what} failed: {why}"
    return None
