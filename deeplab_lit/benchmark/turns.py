"""Time variants of a training step that take turns, and bound the time that each may take.

A busy machine slows all of them alike: read the ratios.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch

from deeplab_lit.benchmark.meter import Seconds, peak_memory, seconds_of
from deeplab_lit.errors import UserError
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.text import plural, say

LATE = "not measured: --minutes are over"
SLOW = 3  # times the baseline's step: measured once, so that one setting does not take the minutes


class Step(NamedTuple):
    """A training step: forward, loss, backward and update on one batch.

    Attributes:
        run: does it.
        compiles: the first one takes long.
    """

    run: Callable[[], None]
    compiles: bool = False


class First(NamedTuple):
    """The first step of a variant, which is not compared unless it is the only one.

    Attributes:
        seconds: it took; None: there was none.
        memory: bytes at its peak beyond those before it; None: not known.
        note: why there was no step.
    """

    seconds: Seconds | None = None
    memory: float | None = None
    note: str = ""


class Row(NamedTuple):
    """Results of a variant.

    Attributes:
        name: of the variant.
        seconds: of the steps that are compared.
        baseline: of its steps in the same rounds.
        memory: bytes at the peak of a step beyond those before it; None: not known.
        note: why there are fewer steps than rounds; empty: there are not.
    """

    name: str
    seconds: list[Seconds]
    baseline: list[Seconds]
    memory: float | None
    note: str

    @property
    def ratios(self) -> list[float]:
        """Return the baseline's time over this one's, round by round."""
        return [b.wall / s.wall for b, s in zip(self.baseline, self.seconds, strict=True)]

    @property
    def processor_ratios(self) -> list[float]:
        """Return likewise of the processor's time, which other work on the machine hardly moves."""
        pairs = zip(self.baseline, self.seconds, strict=True)
        return [b.processor / s.processor for b, s in pairs if s.processor]


def compare(
    steps: Mapping[str, Step], device: torch.device, rounds: int, limit: float
) -> list[Row]:
    """Time training steps that take turns.

    The first step of each shows how much memory it takes, and which of them are far slower than the
    baseline: these are left out of the rounds. Ctrl-C in a later round ends them there.

    Args:
        steps: by the name of the variant, the baseline first.
        device: on which they run.
        rounds: of all of them.
        limit: seconds, after which nothing is begun; but where no round fits, one more step of the
            baseline is: its first one pays for what the whole process sets up.

    Raises:
        UserError: the baseline fails.
    """
    end = perf_counter() + limit
    firsts: dict[str, First] = {}
    for name, one in progress_bar(steps.items(), desc="first steps", unit=" variants", leave=False):
        late = firsts and perf_counter() > end
        firsts[name] = First(note=LATE) if late else first_step(one, device)
    base = next(iter(steps))
    if (base_first := firsts[base].seconds) is None:
        raise UserError(f"the step of the {base} that all are compared with {firsts[base].note}")
    begun = {name: first.seconds for name, first in firsts.items() if first.seconds is not None}
    quick = {n: s.wall for n, s in begun.items() if s.wall <= SLOW * base_first.wall}
    turns: list[dict[str, Seconds]] = []
    with progress_bar(desc="rounds", total=rounds, unit="", leave=False) as progress:
        try:
            while len(turns) < rounds and perf_counter() + sum(quick.values()) < end:
                turns.append({name: seconds_of(steps[name].run) for name in quick})
                progress.update()
        except KeyboardInterrupt:
            say("Interrupted: what was measured before stands below", file=sys.stderr)
    warm = turns[-1][base] if turns else seconds_of(steps[base].run)
    rows = []
    for name, first in firsts.items():
        seconds = [turn[name] for turn in turns if name in turn]
        baseline = [turn[base] for turn in turns if name in turn]
        note = first.note
        if name in begun and not seconds:
            seconds, baseline = [warm if name == base else begun[name]], [warm]
            note = "measured once" if name in quick else f"over {SLOW}× the time: measured once"
        rows.append(Row(name, seconds, baseline, first.memory, note))
    return rows


def first_step(one: Step, device: torch.device) -> First:
    """Return what the first step of a variant takes, without what it takes to compile it."""
    seconds: list[Seconds] = []
    try:
        memory = peak_memory(
            lambda: seconds.append(seconds_of(one.run)), device, one.run if one.compiles else None
        )
    except RuntimeError as error:  # torch says so of lacking memory, compilers, instructions
        return First(note=f"fails: {str(error).strip().splitlines()[0]:.160}")
    return First(seconds[0], memory)


def in_words(rows: Sequence[Row], batch_size: int) -> Iterator[str]:
    """Yield a table: what it holds, its head, and a line for each variant."""
    rounds = plural(max(len(row.seconds) for row in rows), "round")
    yield f"median (least…greatest) of {rounds}; × as fast as the first line, in the same round"
    yield f"  {'':<30} seconds, of processor  images/s  × as fast            of processor  memory"
    base_memory = rows[0].memory
    for row in rows:
        if not row.seconds:
            yield f"  {row.name:<30} {row.note}"
            continue
        wall = median(seconds.wall for seconds in row.seconds)
        processor = median(seconds.processor for seconds in row.seconds)
        spread = f"({min(row.ratios):.2f}…{max(row.ratios):.2f})"
        by_processor = median(row.processor_ratios or [1.0])
        words = f"{wall:8.3f}  {processor:11.3f}  {batch_size / wall:9.2f}  "
        words += f"{median(row.ratios):5.2f} {spread:<13} {by_processor:12.2f}"
        if row.memory is not None and base_memory:
            words += f" {row.memory / 2**30:7.2f} GiB {row.memory / base_memory:5.2f}×"
        yield f"  {row.name:<30} {words} {row.note}".rstrip()
