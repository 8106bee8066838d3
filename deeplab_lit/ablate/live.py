"""The screen while runs are trained: which run, how far they are, and when all will be done."""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence

from deeplab_lit.ablate.plan import Run, Step
from deeplab_lit.ablate.results import progress, share_done
from deeplab_lit.ablate.runner import STATUSES, State

OPEN = ("waiting", "running")
REDRAW_SECONDS = 2  # between two looks at the files
LINE_SECONDS = 60  # between two lines where there is no terminal
ORDER = {"failed": 0, "running": 1, "elsewhere": 1, "done": 2, "left out": 3, "waiting": 4}


class Live:
    """Shows states on stderr: a table that is drawn over, or lines where it is no terminal.

    Args:
        runs: all runs of the ablation.
        labels: label of each setting.
        jobs: processes at a time.
    """

    def __init__(self, runs: Sequence[Run], labels: Sequence[str], jobs: int) -> None:
        self.names: dict[Step, str] = {}
        for run in runs:
            name = f"{labels[run.setting]}, seed {run.seed}"
            self.names.setdefault(run.fit, name)
            self.names[run.validate] = name
        self.jobs = jobs
        self.terminal = sys.stderr.isatty()
        self.last_time = -float(LINE_SECONDS)
        self.last_statuses: dict[Step, str] = {}
        self.lines = 0  # of the table on the terminal

    def __call__(self, states: dict[Step, State]) -> None:
        """Show the states, if it is time or one of them has changed."""
        statuses = {step: state.status for step, state in states.items()}
        is_first = not self.last_statuses
        changed = [s for s in states if self.last_statuses.get(s, "waiting") != statuses[s]]
        now = time.monotonic()
        pause = REDRAW_SECONDS if self.terminal else LINE_SECONDS
        if not changed and now - self.last_time < pause:
            return
        self.last_statuses, self.last_time = statuses, now
        if self.terminal:
            self._draw(states)
            return
        for step in [] if is_first else changed:
            print(self._line(step, states[step]), file=sys.stderr)
        print(summary(states, self.jobs), file=sys.stderr, flush=True)

    def _draw(self, states: dict[Step, State]) -> None:
        width, height = shutil.get_terminal_size()
        rows = sorted(states.items(), key=lambda item: ORDER[item[1].status])[: max(height - 3, 1)]
        lines = [self._line(step, state) for step, state in rows]
        lines.append(summary(states, self.jobs))
        up = f"\x1b[{self.lines}F\x1b[J" if self.lines else ""
        print(up + "\n".join(line[: width - 1] for line in lines), file=sys.stderr, flush=True)
        self.lines = len(lines)

    def _line(self, step: Step, state: State) -> str:
        line = f"{state.status:<9} {step.verb:<8} {self.names[step]}"
        if state.status in ("running", "elsewhere") and step.verb == "fit":
            done, total, miou = progress(step.folder)
            line += f"  {done}/{total or '?'}"
            line += f"  mIoU {100 * miou:.1f} %" if miou is not None else ""
        if state.status == "running" and state.process is not None:
            line += f"  {duration(state.process.seconds())}"
        if state.status == "done" and state.seconds is not None:
            line += f"  {duration(state.seconds)}"
        return f"{line}  {state.reason}" if state.reason else line


def summary(states: dict[Step, State], jobs: int) -> str:
    """Return how many steps are done, running … and the time left, as one line."""
    counts = Counter(state.status for state in states.values())
    text = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    left = seconds_left(states, jobs)
    return f"{text}" + (f"; about {duration(left)} left" if left else "")


def seconds_left(states: dict[Step, State], jobs: int) -> float | None:
    """Estimate the seconds until all is done, from the steps of this call; None: unknown yet.

    Args:
        states: state of each step.
        jobs: processes at a time.
    """
    left = 0.0
    chains = 0  # of steps that can run side by side
    for verb in ("fit", "validate"):
        of_verb = {step: state for step, state in states.items() if step.verb == verb}
        times = [s.seconds for s in of_verb.values() if s.status == "done" and s.seconds]
        running = 0.0  # shares of the running steps that are done
        for step, state in of_verb.items():
            if state.status == "running" and state.process is not None:
                share = share_done(step)
                running += share
                if (since := share - state.process.share_before) > 0.02:
                    times.append(state.process.seconds() / since)
        open_steps = [step for step, state in of_verb.items() if state.status in OPEN]
        chains += sum(s.needs is None or states[s.needs].status not in OPEN for s in open_steps)
        if open_steps and not times:
            if verb == "fit":
                return None
            continue  # a validation is short beside its training
        each = sum(times) / len(times) if times else 0.0
        left += each * (len(open_steps) - running)
    return left / min(jobs, chains) if left else None


def duration(seconds: float) -> str:
    """Return a time as 4:05 or 1:04:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
