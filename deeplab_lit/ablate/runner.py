"""Runs the steps of an ablation: some at a time, going on after failures and interruptions."""

import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from deeplab_lit.ablate.plan import Step
from deeplab_lit.ablate.process import Process, Taken, runs_elsewhere
from deeplab_lit.ablate.progress import is_finished

POLL = 0.5  # seconds
FULL = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)  # files, processes, memory


@dataclass
class State:
    """Where a step stands.

    Attributes:
        word: "waiting", "running", "elsewhere" (a process of another call has it), "done",
            "failed", or "left out" because the step before it has failed.
        process: the last one that ran it, if this call has.
        seconds: that the process took, when it has ended.
        why: it failed.
    """

    word: str = "waiting"
    process: Process | None = None
    seconds: float | None = None
    why: str = ""


def environment(slot: int, jobs: int, cores: int, gpus: Sequence[str]) -> dict[str, str]:
    """What keeps processes that run side by side out of each other's way.

    Args:
        slot: number of the process, 0…jobs−1.
        jobs: processes at a time.
        cores: of the machine.
        gpus: names of the GPUs, as CUDA_VISIBLE_DEVICES has them.

    Returns:
        OMP_NUM_THREADS: the cores' share; CUDA_VISIBLE_DEVICES: the GPUs' share, at least one.
        Nothing for a process on its own.
    """
    if jobs == 1:
        return {}
    variables = {"OMP_NUM_THREADS": str(max(cores // jobs, 1))}
    if gpus:
        own = list(gpus[slot::jobs]) or [gpus[slot % len(gpus)]]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return variables


class Runner:
    """Runs steps until none is left to run.

    Args:
        steps: in the order in which they should run, each behind the one it needs.
        jobs: processes at a time.
        gpus: names of the GPUs to share out.
        variables: of the environment, for all processes.
        see: called with the states whenever there may be something new to show.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        jobs: int,
        gpus: Sequence[str] = (),
        variables: dict[str, str] | None = None,
        see: Callable[[dict[Step, State]], None] = lambda states: None,
    ) -> None:
        self.states = {step: State("done" if is_finished(step) else "waiting") for step in steps}
        self.slots: list[Step | None] = [None] * min(jobs, max(len(steps), 1))
        self.gpus = gpus
        self.variables = variables or {}
        self.see = see
        self.interrupted = 0

    def run(self) -> bool:
        """Run them all.

        Returns:
            Whether it came to an end; not so after Ctrl-C or SIGTERM, which let the processes save
            and leave (a second one: leave at once).
        """
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = {number: signal.signal(number, self._interrupt) for number in numbers}
        try:
            while True:
                self._look()
                self._pass_on()
                if not self.interrupted:
                    self._start()
                self.see(self.states)
                words = {state.word for state in self.states.values()}
                if "running" not in words and (
                    self.interrupted or not words & {"waiting", "elsewhere"}
                ):
                    return not self.interrupted
                time.sleep(POLL)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Only count: a process may just be starting, and is in no slot yet."""
        self.interrupted += 1

    def _pass_on(self) -> None:
        """Interrupt each process as often as we were."""
        for step in filter(None, self.slots):
            process = self.states[step].process
            if process.interrupts < self.interrupted:
                process.interrupt()

    def _look(self) -> None:
        """Take note of what has ended."""
        for slot, step in enumerate(self.slots):
            state = self.states[step] if step else None
            if state is None or (code := state.process.ended()) is None:
                continue
            self.slots[slot] = None
            state.seconds = state.process.seconds()
            if code == 0:
                state.word = "done"
            elif self.interrupted:
                state.word = "waiting"
            else:
                state.word, state.why = "failed", state.process.note_failure()
        for step, state in self.states.items():
            if state.word == "elsewhere" and not runs_elsewhere(step):
                state.word = "done" if is_finished(step) else "waiting"
            before = self.states[step.needs].word if step.needs else "done"
            if state.word == "waiting" and before in ("failed", "left out"):
                state.word, state.why = "left out", "its training failed"

    def _start(self) -> None:
        """Fill the free slots."""
        for slot, taken in enumerate(self.slots):
            step = None if taken or self.interrupted else self._next()
            if step is None:
                continue
            cores = os.cpu_count() or 1
            variables = self.variables | environment(slot, len(self.slots), cores, self.gpus)
            state = self.states[step]
            try:
                state.process = Process(step, variables)
            except Taken:
                state.word = "elsewhere"
                continue
            except OSError as error:
                if error.errno in FULL and any(self.slots):
                    return  # one that runs will end and make room
                state.word, state.why = "failed", f"it cannot be started: {error}"
                continue
            state.word = "running"
            self.slots[slot] = step

    def _next(self) -> Step | None:
        for step, state in self.states.items():
            ready = step.needs is None or self.states[step.needs].word == "done"
            if state.word == "waiting" and ready:
                return step
        return None
