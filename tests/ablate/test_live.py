import pytest

from deeplab_lit.ablate.live import Live, duration, seconds_left, summary
from deeplab_lit.ablate.runner import State


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
