import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import pytest

from deeplab_lit.ablate.plan import Step
from deeplab_lit.ablate.process import (
    Process,
    TakenError,
    failure_of,
    log_of,
    runs_elsewhere,
    shares,
)
from deeplab_lit.ablate.results import is_finished
from deeplab_lit.ablate.sweep import SweepError

TELL = """
import json, os, sys
print(json.dumps([sys.argv[1:], os.environ["GREETING"], sys.stdin.read()]))
"""
WAIT = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
pathlib.Path(os.environ["READY"]).write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
def step(tmp_path):
    folder = tmp_path / "runs/rates/a"
    folder.parent.mkdir(parents=True)
    return Step("fit", folder, ("--model.lr=0.1",))


@pytest.fixture
def waiting(program, step, tmp_path):
    """Starts a process that waits for a signal."""
    started = []

    def start():
        ready = tmp_path / "ready"
        process = Process(step, {"READY": str(ready)})
        started.append(process.process)
        wait_for(lambda: ready.exists() and ready.read_text())
        return process

    program(WAIT)
    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def code_of(process):
    wait_for(lambda: process.exit_code() is not None)
    return process.exit_code()


def told(step):
    """What TELL has said: its arguments, a variable, its input."""
    process = Process(step, {"GREETING": "hello"})
    assert code_of(process) == 0
    return json.loads(log_of(step).read_text().splitlines()[-1])


def test_a_step_runs_under_its_name_with_our_variables_and_no_input(program, step, tmp_path):
    """A training goes on from its last checkpoint, or begins where it has none: `fit` decides."""
    program(TELL)
    place = [f"--runs_dir={tmp_path / 'runs'}", "--experiment=rates", "--run=a"]
    words = ["-m", "deeplab_lit.fit", "--model.lr=0.1", *place, "--ckpt_path=last"]
    assert told(step) == [words, "hello", ""]
    assert log_of(step) == tmp_path / "runs/rates/logs/a.log"
    assert log_of(step).read_text().startswith("$ ")
    assert " ".join(words) in log_of(step).read_text().splitlines()[0]


def test_a_training_that_was_begun_stays_in_its_folder(program, step):
    program(TELL)
    step.folder.mkdir()
    (step.folder / "metrics.csv").write_text("step\n")
    assert told(step)[0][-2:] == ["--run=a", "--ckpt_path=last"]
    assert [path.name for path in step.folder.parent.iterdir() if path.name != "logs"] == ["a"]


def test_a_validation_that_was_cut_off_is_put_aside_and_begun_anew(program, step):
    program(TELL)
    step = replace(step, verb="validate")
    for number in (1, 2):
        step.folder.mkdir()
        (step.folder / "metrics.csv").write_text(f"attempt {number}")
        assert told(step)[0][-1] == "--run=a"
        assert not step.folder.exists()
        aside = step.folder.with_name(f"a.aborted{number}")
        assert (aside / "metrics.csv").read_text() == f"attempt {number}"
    assert (step.folder.with_name("a.aborted1") / "metrics.csv").read_text() == "attempt 1"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('one'); print('two'); print(); exit(3)", (3, "two")),
        (
            "import sys; print('error: no data', file=sys.stderr); print('bye'); exit(2)",
            (2, "no data"),
        ),
        ("exit(1)", (1, "it said nothing; exit code 1")),
        ("import os; os.abort()", (-6, "it said nothing; exit code -6")),
        ("raise ValueError('odd')", (1, "ValueError: odd")),
    ],
)
def test_a_failure_is_told_by_its_code_and_its_last_word(program, step, code, expected):
    log_of(step).parent.mkdir()
    log_of(step).write_text("error: what an earlier call died of\n")
    program(code)
    process = Process(step, {})
    assert (code_of(process), process.record_failure()) == expected
    assert failure_of(step) == expected[1]
    assert log_of(step).read_text().startswith("error: what an earlier call died of\n$ ")


def test_an_interrupted_process_can_leave_in_its_own_way(waiting):
    process = waiting()
    assert process.exit_code() is None
    process.interrupt()
    assert code_of(process) == 130
    assert 0 < process.seconds() < 30
    process.interrupt()  # harmless now
    assert process.exit_code() == 130


def test_ctrl_c_of_the_terminal_does_not_reach_it(waiting):
    process = waiting()
    assert os.getpgid(process.process.pid) != os.getpgid(0)
    assert os.getsid(process.process.pid) != os.getsid(0)


def test_a_run_is_locked_as_long_as_its_process_lives(waiting, step):
    assert not runs_elsewhere(step)
    process = waiting()
    assert runs_elsewhere(step)
    with pytest.raises(TakenError):
        Process(step, {})
    process.process.kill()
    assert code_of(process) == -signal.SIGKILL
    assert not runs_elsewhere(step)
    again = waiting()
    assert again.exit_code() is None


def test_the_lock_outlives_whoever_started_the_process(program, step, tmp_path):
    program(WAIT)
    ready = tmp_path / "ready"
    variables = {"READY": str(ready)}
    caller = multiprocessing.get_context("fork").Process(target=Process, args=(step, variables))
    caller.start()
    caller.join()
    wait_for(lambda: ready.exists() and ready.read_text())
    assert runs_elsewhere(step)
    os.kill(int(ready.read_text()), signal.SIGKILL)
    wait_for(lambda: not runs_elsewhere(step))


def test_what_is_finished_is_not_started_and_not_put_aside(program, step, tmp_path):
    program(f"open({str(tmp_path / 'started')!r}, 'w')")
    step.folder.mkdir()
    (step.folder / "results.json").write_text('{"finished": true}')
    with pytest.raises(TakenError, match="finished"):
        Process(step, {})
    assert is_finished(step)
    assert not runs_elsewhere(step)
    assert not (tmp_path / "started").exists()


def test_where_there_are_no_such_locks_it_says_so(monkeypatch, step):
    monkeypatch.setattr("deeplab_lit.atomic.fcntl", None)
    with pytest.raises(SweepError, match="Linux or macOS"):
        Process(step, {})


def test_cores_and_gpus_are_shared_out():
    assert shares(0, 1, 8, ["0", "1"]) == {}
    assert shares(0, 2, 8, []) == {"OMP_NUM_THREADS": "4"}
    assert shares(3, 4, 2, [])["OMP_NUM_THREADS"] == "1"
    gpus = [shares(i, 2, 8, ["0", "1", "5"])["CUDA_VISIBLE_DEVICES"] for i in (0, 1)]
    assert gpus == ["0,5", "1"]
    gpus = [shares(i, 3, 8, ["4", "7"])["CUDA_VISIBLE_DEVICES"] for i in (0, 1, 2)]
    assert gpus == ["4", "7", "4"]
