import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from deeplab_lit.ablate.plan import Step
from deeplab_lit.ablate.process import Process, State, TakenError, log_of, runs_elsewhere
from deeplab_lit.ablate.results import is_finished
from deeplab_lit.ablate.runner import Live, Runner, duration, seconds_left, summary

FAKE = Path(__file__).with_name("fake_run.py")


@pytest.fixture(autouse=True)
def _fast_processes(program, monkeypatch):
    """Processes that start in no time."""
    program(FAKE)
    monkeypatch.setattr("deeplab_lit.ablate.runner.POLL", 0.02)


@pytest.fixture(autouse=True)
def _usual_ctrl_c():
    """The tests may run where it is ignored: under nohup, or behind a shell's &."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
    end = time.monotonic() + 300
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
    assert time.monotonic() - begin < 300  # it would wait for 600
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


class Timed:
    """A process that has run for so many seconds."""

    def __init__(self, seconds, share_before=0.0):
        self.taken, self.share_before = seconds, share_before

    def seconds(self):
        return self.taken


@pytest.fixture
def states(runs, make_run):
    """One of four trainings done in 100 s, one of them half done; nothing validated."""
    made = {step: State() for run in runs for step in (run.fit, run.validate)}
    made[runs[0].fit] = State("done", seconds=100)
    running = runs[1].fit
    running.folder.mkdir(parents=True)
    (running.folder / "config.yaml").write_text("trainer: {max_steps: 40}")
    (running.folder / "metrics.csv").write_text("step,val/miou\n19,0.5\n")
    made[running] = State("running", Timed(50))
    return made


def test_the_time_left_is_worked_out_from_what_is_done(states):
    # a half and two whole trainings of 100 s; the validations' time is unknown yet
    assert seconds_left(states, jobs=1) == pytest.approx(250)
    assert seconds_left(states, jobs=2) == pytest.approx(125)


def test_what_an_earlier_call_did_counts_as_done_but_not_as_speed(states, runs):
    # from a quarter to a half in 50 s: 200 s a training; with the one of 100 s, 150 on average
    states[runs[1].fit] = State("running", Timed(50, share_before=0.25))
    assert seconds_left(states, jobs=1) == pytest.approx(150 * 2.5)
    states[runs[1].fit] = State("running", Timed(1, share_before=0.5))  # nothing new to go by
    assert seconds_left(states, jobs=1) == pytest.approx(100 * 2.5)


def test_more_jobs_than_steps_are_left_make_nothing_faster(states, runs):
    assert seconds_left(states, jobs=3) == pytest.approx(250 / 3)
    assert seconds_left(states, jobs=4) == pytest.approx(250 / 4)  # a validation is waiting too
    for run in runs[1:]:
        states[run.fit] = State("done", seconds=100)
    for run in runs[:3]:
        states[run.validate] = State("done", seconds=20)
    assert seconds_left(states, jobs=8) == pytest.approx(20)  # one is left
    states[runs[3].fit] = State("waiting")
    assert seconds_left(states, jobs=8) == pytest.approx(120)  # one after the other


def test_validations_count_when_their_time_is_known(states, runs):
    states[runs[0].validate] = State("done", seconds=20)
    assert seconds_left(states, jobs=1) == pytest.approx(250 + 3 * 20)


def test_nothing_is_foretold_at_the_beginning(runs):
    assert seconds_left({runs[0].fit: State()}, jobs=1) is None
    assert summary({runs[0].fit: State()}, 1) == "1 waiting"


def test_the_summary_counts(states):
    assert summary(states, 1) == "1 done, 1 running, 6 waiting; about 4:10 left"


def test_without_a_terminal_changes_are_lines(states, runs, capsys):
    live = Live(runs, ["rates 1", "rates 2, 4"], jobs=1)
    live(states)
    assert capsys.readouterr().err == "1 done, 1 running, 6 waiting; about 4:10 left\n"
    live(states)
    assert capsys.readouterr().err == ""
    states[runs[1].fit] = State("failed", Timed(60), 60, "the loss is nan")
    live(states)
    said = capsys.readouterr().err
    assert "failed    fit      rates 2, 4, seed 0  the loss is nan\n" in said


def test_on_a_terminal_the_table_is_drawn_over(states, runs, capsys, monkeypatch):
    live = Live(runs, ["rates 1", "rates 2, 4"], jobs=1)
    live.terminal = True
    live(states)
    first = capsys.readouterr().err
    assert "running   fit      rates 2, 4, seed 0  20/40  mIoU 50.0 %  0:50" in first
    states[runs[1].fit] = State("done", Timed(60), 60)
    live(states)
    up = first.count("\n")
    assert capsys.readouterr().err.startswith(f"\x1b[{up}F\x1b[J")


def test_durations():
    assert [duration(x) for x in (5, 65, 3725.4)] == ["0:05", "1:05", "1:02:05"]
