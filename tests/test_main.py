import re
import runpy
import sys

import pytest

from deeplab_lit.__main__ import GROUPS, commands, main
from deeplab_lit.shipped import CONFIGS


@pytest.fixture
def run(monkeypatch, capsys):
    """Exit code, output and errors of a function that is a process's whole work."""

    def run(function, *args):
        monkeypatch.setattr(sys, "argv", ["deeplab_lit/__main__.py", *args])
        try:
            function()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


def test_it_lists_the_commands(run):
    code, listed, _ = run(main)
    assert code == 0
    assert {"fit", "validate", "predict", "benchmark"} <= commands().keys()
    assert all(name in listed and what in listed for name, what in commands().items())
    assert f"lie in {CONFIGS}" in listed


def test_every_command_stands_below_one_heading_of_the_list():
    assert sorted(name for names in GROUPS.values() for name in names) == list(commands())


def test_an_unknown_command_is_refused(run):
    code, _, error = run(main, "paint")
    assert code == 2
    assert "no command 'paint': expected one of ablate, " in error
    assert "no command 'fti': did you mean fit?" in run(main, "fti")[2]


@pytest.mark.filterwarnings("ignore:.* found in sys.modules")  # other tests have imported it
@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_has_help_in_both_spellings(command, run):
    def dotted():
        """As `python -m deeplab_lit.COMMAND` does."""
        runpy.run_module(f"deeplab_lit.{command}", run_name="__main__", alter_sys=True)

    code, shown, error = run(dotted, "--help")
    assert code == 0, error
    assert "usage:" in shown
    assert "see --help" not in shown
    examples = re.findall(rf"^  python -m deeplab_lit\.{command}.*", shown, re.MULTILINE)
    assert examples
    for config in re.findall(r"configs/\S+", " ".join(examples)):
        assert (CONFIGS.parent / config).is_file()
    code, other, _ = run(main, command, "--help")
    assert code == 0
    assert other.split() == shown.split()
