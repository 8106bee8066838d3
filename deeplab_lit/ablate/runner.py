"""Runs the steps of an ablation: some at a time, going on after failures and interruptions."""

import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from deeplab_lit.ablate.plan import Step
from deeplab_lit.ablate.process import Process, TakenError, runs_elsewhere, shares
from deeplab_lit.ablate.results import is_finished

POLL = 0.5  # seconds
FULL = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)  # files, processes, memory
STATUSES = ("done", "running", "elsewhere", "waiting", "failed", "left out")


@dataclass
class State:
    """Where a step stands.

    Attributes:
        status: one of STATUSES. "elsewhere": a process of another call runs it; "left out": the
            step before it has failed.
        process: process that runs it, or ran it last; None: none of this call has.
        seconds: how long that process took; None: it has not ended.
        reason: why it failed or was left out.
    """

    status: str = "waiting"
    process: Process | None = None
    seconds: float | None = None
    reason: str = ""


class Runner:
    """Runs steps until none is left to run.

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
