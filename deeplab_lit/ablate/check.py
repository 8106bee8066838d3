"""Whether `fit` understands what is asked of it, before the first process starts."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from deeplab_lit import fit
from deeplab_lit.ablate.plan import Run
from deeplab_lit.ablate.results import is_finished
from deeplab_lit.ablate.sweep import SweepError


def check(runs: Sequence[Run], labels: Sequence[str]) -> None:
    """Parse the command line of each setting that is not done, of one seed; nothing is run.

    Options of the scoring are `fit`'s too, so that those of both are seen.

    Args:
        runs: of the ablation.
        labels: of the settings, in words.

    Raises:
        SweepError: an option does not exist, or cannot have that value; names the settings.
    """
    wrong: dict[str, list[str]] = {}
    seen = set()
    for run in runs:
        if run.setting in seen or (is_finished(run.fit) and is_finished(run.validate)):
            continue
        seen.add(run.setting)
        asked = [*run.fit.args, *run.validate.args]
        said = _refused([word for word in asked if not word.startswith("--ckpt_path=")])
        if said:
            wrong.setdefault(said, []).append(f"“{labels[run.setting]}”")
    if wrong:
        lines = [
            f"{'all settings' if len(names) == len(seen) > 1 else ', '.join(names)}: {said}"
            for said, names in wrong.items()
        ]
        raise SweepError("no run was started, for fit does not take\n  " + "\n  ".join(lines))


def _refused(args: Sequence[str]) -> str:
    """What `fit` says against a command line; empty where it takes it.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile.
    """
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        try:
            fit.main([*args, "--print_config"])
        except SystemExit as stop:
            if not stop.code:
                return ""
            if isinstance(stop.__cause__, KeyboardInterrupt):
                raise KeyboardInterrupt from stop
    return " ".join(said.getvalue().rpartition("error: ")[2].split()) or "it does not say why"
