import subprocess

import pytest

from deeplab_lit.benchmark import startup
from deeplab_lit.benchmark.startup import STARTS, Start, compare_starts


def test_starts_take_turns_and_are_compared_with_their_baseline(monkeypatch, capsys):
    base, quick, slow = ("-c", "import base"), ("-m", "quick"), ("-m", "slow", "--help")
    seconds = {base: iter([9, 1.0, 4.0]), quick: iter([9, 0.1, 0.4]), slow: iter([9, 1.5, 6.0])}
    order = []

    def timed(words):
        order.append(words)
        return next(seconds[words])

    monkeypatch.setattr(startup, "_time", timed)
    compare_starts(2, (Start(base, base), Start(quick, base, 0.15), Start(slow, base, 1.3)))
    assert order == [base, quick, slow] * 3
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "import base 2.50 s 1.00× import base",
        "python -m quick 0.25 s 0.10× import base, goal 0.15×",
        "python -m slow --help 3.75 s 1.50× import base, goal 1.3×: MISSED",
    ]


def test_an_interpreter_is_started_that_finds_the_package(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert startup._time(("-c", "import deeplab_lit.errors")) > 0
    with pytest.raises(subprocess.CalledProcessError):
        startup._time(("-c", "import nothing_of_that_name"))


def test_every_goal_has_its_baseline_among_the_starts():
    assert {start.beside for start in STARTS} <= {start.words for start in STARTS}
    assert [start.goal for start in STARTS if start.goal] == [0.15] * 4 + [1.3, 1.15]
