"""Runs the steps of an ablation, some at a time, and shows how far they are."""

import errno
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import FrameType

from deeplab_lit.ablate.plan import Run, Step
from deeplab_lit.ablate.process import STATUSES, Process, State, TakenError, runs_elsewhere, shares
from deeplab_lit.ablate.results import is_finished, progress, share_done

POLL = 0.5  # seconds
FULL = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)  # files, processes, memory
OPEN = ("waiting", "running")
REDRAW_SECONDS = 2  # between two looks at the files
LINE_SECONDS = 60  # between two lines where there is no terminal
ORDER = {"failed": 0, "running": 1, "elsewhere": 1, "done": 2, "left out": 3, "waiting": 4}


class Runner:
    """Runs steps until none is left to run, going on after failures and interruptions.

    Args:
        steps: in the order in which they should run, each behind the one it needs.
        jobs: processes at a time.
        gpus: names of the GPUs to share out, as in CUDA_VISIBLE_DEVICES.
        variables: environment variables for all processes.
        show: called with the states again and again, whenever they may have changed.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        jobs: int,
        gpus: Sequence[str] = (),
        variables: dict[str, str] | None = None,
        show: Callable[[dict[Step, State]], None] = lambda states: None,
    ) -> None:
        self.states = {step: State("done" if is_finished(step) else "waiting") for step in steps}
        self.slots: list[tuple[Step, Process] | None] = [None] * min(jobs, max(len(steps), 1))
        self.gpus = gpus
        self.variables = variables or {}
        self.show = show
        self.interrupts = 0

    def run(self) -> bool:
        """Run them all.

        Returns:
            Whether it came to an end; not so after Ctrl-C or SIGTERM, which let the processes save
            and leave (a second one: leave at once).
        """
        signals = (signal.SIGINT, signal.SIGTERM)
        handlers = {number: signal.signal(number, self._interrupt) for number in signals}
        try:
            while True:
                self._collect()
                self._pass_interrupts_on()
                if not self.interrupts:
                    self._fill_slots()
                self.show(self.states)
                left = {state.status for state in self.states.values()}
                if "running" not in left and (
                    self.interrupts or not left & {"waiting", "elsewhere"}
                ):
                    return not self.interrupts
                time.sleep(POLL)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Only count: a process may just be starting, and is in no slot yet."""
        self.interrupts += 1

    def _pass_interrupts_on(self) -> None:
        """Interrupt each process as often as this one was."""
        for _, process in filter(None, self.slots):
            if process.interrupts < self.interrupts:
                process.interrupt()

    def _collect(self) -> None:
        """Note which steps have ended, and which can no longer run."""
        for index, slot in enumerate(self.slots):
            if slot is None:
                continue
            step, process = slot
            code = process.exit_code()
            if code is None:
                continue
            self.slots[index] = None
            state = self.states[step]
            state.seconds = process.seconds()
            if code == 0:
                state.status = "done"
            elif self.interrupts:
                state.status = "waiting"
            else:
                state.status, state.reason = "failed", process.record_failure()
        for step, state in self.states.items():
            if state.status == "elsewhere" and not runs_elsewhere(step):
                state.status = "done" if is_finished(step) else "waiting"
            before = self.states[step.needs].status if step.needs else "done"
            if state.status == "waiting" and before in ("failed", "left out"):
                state.status, state.reason = "left out", "its training failed"

    def _fill_slots(self) -> None:
        """Start a step in each free slot, while there are any that can start."""
        for index, slot in enumerate(self.slots):
            step = None if slot or self.interrupts else self._next()
            if step is None:
                continue
            cores = os.cpu_count() or 1
            variables = self.variables | shares(index, len(self.slots), cores, self.gpus)
            state = self.states[step]
            try:
                process = Process(step, variables)
            except TakenError:
                state.status = "elsewhere"
                continue
            except OSError as error:
                if error.errno in FULL and any(self.slots):
                    return  # one that runs will end and make room
                state.status, state.reason = "failed", f"it cannot be started: {error}"
                continue
            state.status, state.process = "running", process
            self.slots[index] = step, process

    def _next(self) -> Step | None:
        """Return the first step that waits for nothing but a slot."""
        for step, state in self.states.items():
            ready = step.needs is None or self.states[step.needs].status == "done"
            if state.status == "waiting" and ready:
                return step
        return None


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
