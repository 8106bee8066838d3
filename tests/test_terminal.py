import io
import sys
import warnings

import pytest

from deeplab_lit.errors import UserError, plain_errors
from deeplab_lit.terminal import colored, command, from_here, python_line, shows_colors
from deeplab_lit.text import say

LINES = "Best mIoU 12.30 % at step 4\nWARNING: few\nNext        python -m x\nNextdoor    y"


class Screen(io.StringIO):
    """A stream that calls itself a terminal, or not."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Screen(terminal=True)


def test_on_a_terminal_a_few_words_have_colors(terminal):
    assert colored(LINES, terminal) == (
        "Best \x1b[1mmIoU 12.30 %\x1b[0m at step 4\n\x1b[33mWARNING:\x1b[0m few\n"
        "Next        \x1b[1mpython -m x\x1b[0m\nNextdoor    y"
    )


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_whoever_wants_no_colors_gets_none(terminal, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert colored(LINES, terminal) == LINES


def test_files_closed_streams_and_old_consoles_get_no_colors(terminal, monkeypatch):
    closed = io.StringIO()
    closed.close()
    assert not any(map(shows_colors, [Screen(terminal=False), None, closed]))
    monkeypatch.setattr("os.name", "nt")
    monkeypatch.delenv("WT_SESSION", raising=False)
    assert not shows_colors(terminal)
    monkeypatch.setenv("WT_SESSION", "x")
    assert shows_colors(terminal)


def test_what_commands_say_warn_and_refuse_is_colored_where_it_goes(terminal, monkeypatch):
    """Where one stream is a terminal and the other a file, each has its own."""
    file = Screen(terminal=False)

    def refuse():
        with plain_errors():
            say("WARNING: a")
            sys.stderr.write(warnings.formatwarning("b", UserWarning, "x.py", 1))
            raise UserError("c")

    for out, err in ((file, terminal), (terminal, file)):
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit):
            refuse()
    assert file.getvalue() == "WARNING: a\nWARNING: b\nerror: c\n"
    yellow = "\x1b[33mWARNING:\x1b[0m"
    assert terminal.getvalue() == f"{yellow} b\n\x1b[1;31merror:\x1b[0m c\n{yellow} a\n"


def test_commands_to_type_are_quoted_and_paths_are_as_seen_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / "a b/c") == "a b/c"
    assert from_here("/elsewhere") == "/elsewhere"
    assert command("x.y", "--a", "b c").endswith(" -m x.y --a 'b c'")
    assert python_line("print('x')").endswith(""" -c 'print('"'"'x'"'"')'""")
