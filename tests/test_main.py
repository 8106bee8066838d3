import subprocess
import sys

import pytest

from deeplab_lit.__main__ import commands


def run(*args):
    command = [sys.executable, "-m", "deeplab_lit", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_it_lists_the_commands():
    listed = run()
    assert listed.returncode == 0
    assert {"fit", "validate", "predict", "benchmark"} <= commands().keys()
    assert all(name in listed.stdout and what in listed.stdout for name, what in commands().items())


def test_an_unknown_command_is_refused():
    refused = run("paint")
    assert refused.returncode == 2
    assert "no command 'paint'" in refused.stderr


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_has_help_in_both_spellings(command):
    dotted = [sys.executable, "-m", f"deeplab_lit.{command}", "--help"]
    dotted = subprocess.run(dotted, capture_output=True, text=True, timeout=120)
    assert dotted.returncode == 0, dotted.stderr
    assert "usage:" in dotted.stdout
    assert run(command, "--help").stdout.split() == dotted.stdout.split()
