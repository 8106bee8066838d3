import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from deeplab_lit.ablate.plan import Step
from deeplab_lit.ablate.process import Process, TakenError, log_of, runs_elsewhere
from deeplab_lit.ablate.results import is_finished
from deeplab_lit.ablate.runner import Runner

FAKE = Path(__file__).with_name("fake_run.py")


@pytest.fixture(autouse=True)
def _fast_processes(program, monkeypatch):
    """Processes that start in no time."""
    program(FAKE)
    monkeypatch.setattr("deeplab_lit.ablate.runner.POLL", 0.02)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "runs/rates").mkdir(parents=True)
    return tmp_path / "runs/rates"


def step(folder, name, *args, needs=None):
    return Step("validate" if needs else "fit", folder / name, args, needs)


def words(runner):
    return [state.status for state in runner.states.values()]


def calls(folder):
    return [line.split() for line in (folder / "calls.txt").read_text().splitlines()]


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def interrupt_when(condition):
    """Ctrl-C from another thread, as soon as the condition holds."""

    def run():
        wait_for(condition)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=run).start()


def test_all_steps_run_each_after_the_one_it_needs(folder):
    first = step(folder, "a")
    runner = Runner([first, step(folder, "a-val", needs=first), step(folder, "b")], jobs=1)
    assert runner.run()
    assert words(runner) == ["done"] * 3
    assert [call[:2] for call in calls(folder)] == [
        ["fit", "a"],
        ["validate", "a-val"],
        ["fit", "b"],
    ]


def test_what_is_finished_is_not_run_again(folder):
    first = step(folder, "a")
    assert Runner([first], jobs=1).run()
    assert is_finished(first)
    assert Runner([first, step(folder, "b")], jobs=2).run()
    assert [call[1] for call in calls(folder)] == ["a", "b"]


def test_a_failure_is_reported_and_stops_nothing_else(folder):
    bad = step(folder, "bad", "--fail=1")
    runner = Runner([bad, step(folder, "bad-val", needs=bad), step(folder, "good")], jobs=1)
    assert runner.run()
    assert words(runner) == ["failed", "left out", "done"]
    assert runner.states[bad].reason == "the loss is nan"
    assert "the loss is nan" in log_of(bad).read_text()


def test_ctrl_c_lets_runs_save_and_the_next_call_goes_on_from_there(folder):
    slow, later = step(folder, "slow", "--slow=1"), step(folder, "later")
    interrupt_when((folder / "slow/ready").exists)
    runner = Runner([slow, later], jobs=1)
    assert not runner.run()
    assert words(runner) == ["waiting", "waiting"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # ours again
    again = Runner([slow, later], jobs=1)
    assert again.run()
    assert words(again) == ["done", "done"]
    assert calls(folder) == [["fit", "slow"], ["fit", "slow", "last"], ["fit", "later"]]


def test_ctrl_c_while_a_process_is_being_started_reaches_it_too(folder, monkeypatch):
    slow, later = step(folder, "slow", "--slow=1"), step(folder, "later", "--slow=1")

    class Pressed(Process):
        """Ctrl-C comes when the process runs and nobody has taken note of it yet."""

        def __init__(self, *args):
            super().__init__(*args)
            wait_for((folder / "slow/ready").exists)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("deeplab_lit.ablate.runner.Process", Pressed)
    runner = Runner([slow, later], jobs=2)
    begin = time.monotonic()
    assert not runner.run()
    assert time.monotonic() - begin < 30  # it would wait for 60
    assert words(runner) == ["waiting", "waiting"]
    assert (folder / "slow/checkpoints/last.ckpt").exists()
    assert calls(folder) == [["fit", "slow"]]


def test_what_another_call_has_finished_meanwhile_is_not_run_again(folder):
    first, second = step(folder, "a"), step(folder, "b")
    runner = Runner([first, second], jobs=1)
    assert Runner([second], jobs=1).run()
    assert runner.run()
    assert words(runner) == ["done", "done"]
    assert calls(folder) == [["fit", "b"], ["fit", "a"]]


def test_a_run_that_outlived_its_caller_is_waited_for_not_doubled(folder):
    slow = step(folder, "slow", "--slow=1")
    orphan = Process(slow, {})
    wait_for((folder / "slow/ready").exists)
    assert runs_elsewhere(slow)
    with pytest.raises(TakenError):
        Process(slow, {})
    seen = []

    def see(states):
        seen.append(states[slow].status)
        if seen[-1] == "elsewhere" and seen.count("elsewhere") == 3:
            orphan.interrupt()
        orphan.exit_code()  # as init does for orphans

    runner = Runner([slow], jobs=1, show=see)
    assert runner.run()
    assert seen[0] == "elsewhere"
    assert words(runner) == ["done"]
    assert calls(folder) == [["fit", "slow"], ["fit", "slow", "last"]]


def test_so_many_run_at_a_time(folder):
    slow = [step(folder, f"slow{i}", "--slow=1") for i in range(3)]
    interrupt_when(lambda: len(list(folder.glob("*/ready"))) == 2)
    assert not Runner(slow, jobs=2).run()
    assert sorted(path.parent.name for path in folder.glob("*/ready")) == ["slow0", "slow1"]


def refusing(number, when):
    """A Process that cannot be started while `when` holds."""

    class Refused(Process):
        def __init__(self, *args):
            if when():
                raise OSError(number, os.strerror(number))
            super().__init__(*args)

    return Refused


def test_where_the_system_is_full_steps_wait_for_those_that_run(folder, monkeypatch):
    """As with too many open files: one at a time still goes."""
    a, b, c = (step(folder, name) for name in "abc")
    runner = Runner([a, b, c], jobs=3)
    full = refusing(errno.EMFILE, lambda: any(runner.slots))
    monkeypatch.setattr("deeplab_lit.ablate.runner.Process", full)
    assert runner.run()
    assert words(runner) == ["done"] * 3


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC, errno.ENOLCK])
def test_what_cannot_be_started_at_all_has_failed_and_says_why(folder, monkeypatch, number):
    monkeypatch.setattr("deeplab_lit.ablate.runner.Process", refusing(number, lambda: True))
    first = step(folder, "a")
    runner = Runner([first, step(folder, "a-val", needs=first)], jobs=2)
    assert runner.run()
    assert words(runner) == ["failed", "left out"]
    assert os.strerror(number) in runner.states[first].reason


def test_more_jobs_than_steps_take_no_more_than_these(folder):
    runner = Runner([step(folder, "a"), step(folder, "b")], jobs=10**12)
    assert len(runner.slots) == 2
    assert runner.run()
