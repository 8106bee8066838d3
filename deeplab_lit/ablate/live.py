"""The live table: what runs, how far it is, and when all will be done."""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence

from deeplab_lit.ablate.plan import Run, Step
from deeplab_lit.ablate.progress import progress, share_done
from deeplab_lit.ablate.runner import State

WORDS = ("done", "running", "elsewhere", "waiting", "failed", "left out")
EVERY = 2  # seconds, between two looks at the files
OPEN = ("waiting", "running")
SAY_EVERY = 60  # seconds, between two lines where there is no terminal


class Live:
    """Shows states on stderr: a table that is drawn over, or lines where it is no terminal.

    Args:
        runs: of the ablation.
        labels: of the settings, in words.
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
        self.shown = -SAY_EVERY
        self.lines = 0
        self.words: dict[Step, str] = {}

    def __call__(self, states: dict[Step, State]) -> None:
        """Show them, if it is time or something has changed."""
        words = {step: state.word for step, state in states.items()}
        changed = [step for step in states if self.words.get(step, "waiting") != words[step]]
        now = time.monotonic()
        if not changed and now - self.shown < (EVERY if self.terminal else SAY_EVERY):
            return
        first, self.words, self.shown = not self.words, words, now
        if self.terminal:
            self._draw(states)
            return
        for step in [] if first else changed:
            print(self._line(step, states[step]), file=sys.stderr)
        print(summary(states, self.jobs), file=sys.stderr, flush=True)

    def _draw(self, states: dict[Step, State]) -> None:
        width, height = shutil.get_terminal_size()
        order = {"failed": 0, "running": 1, "elsewhere": 1, "done": 2, "left out": 3, "waiting": 4}
        rows = sorted(states.items(), key=lambda item: order[item[1].word])[: max(height - 3, 1)]
        lines = [self._line(step, state) for step, state in rows]
        lines.append(summary(states, self.jobs))
        up = f"\x1b[{self.lines}F\x1b[J" if self.lines else ""
        print(up + "\n".join(line[: width - 1] for line in lines), file=sys.stderr, flush=True)
        self.lines = len(lines)

    def _line(self, step: Step, state: State) -> str:
        line = f"{state.word:<9} {step.verb:<8} {self.names[step]}"
        if state.word in ("running", "elsewhere") and step.verb == "fit":
            done, total, miou = progress(step.folder)
            line += f"  {done}/{total or '?'}"
            line += f"  mIoU {100 * miou:.1f} %" if miou is not None else ""
        if state.word == "running":
            line += f"  {duration(state.process.seconds())}"
        if state.word == "done" and state.seconds is not None:
            line += f"  {duration(state.seconds)}"
        return f"{line}  {state.why}" if state.why else line


def summary(states: dict[Step, State], jobs: int) -> str:
    """How many steps are where, and the time left."""
    counts = Counter(state.word for state in states.values())
    text = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
    left = seconds_left(states, jobs)
    return f"{text}" + (f"; about {duration(left)} left" if left else "")


def seconds_left(states: dict[Step, State], jobs: int) -> float | None:
    """Time until all is done, from the speed of this call's own steps; null while unknown.

    Args:
        states: of all steps.
        jobs: processes at a time.
    """
    left = 0.0
    going = 0  # chains of steps, which can run side by side
    for verb in ("fit", "validate"):
        own = {step: state for step, state in states.items() if step.verb == verb}
        shares = {s: share_done(s) for s, state in own.items() if state.word == "running"}
        took = [state.seconds for state in own.values() if state.word == "done" and state.seconds]
        for step, share in shares.items():
            process = own[step].process
            if (since := share - process.share_before) > 0.02:
                took.append(process.seconds() / since)
        open_steps = [step for step, state in own.items() if state.word in OPEN]
        going += sum(s.needs is None or states[s.needs].word not in OPEN for s in open_steps)
        if open_steps and not took:
            if verb == "fit":
                return None
            continue  # a validation is short beside its training
        each = sum(took) / len(took) if took else 0.0
        left += each * (len(open_steps) - sum(shares.values()))
    return left / min(jobs, going) if left else None


def duration(seconds: float) -> str:
    """As 4:05 or 1:04:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
