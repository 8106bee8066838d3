import logging
import subprocess
import sys
import warnings

import pytest

from deeplab_lit.cli.quiet import quieten


@pytest.fixture
def said(monkeypatch):
    """Quietens libraries; what warnings of these words are then shown."""

    def show(*messages):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            quieten()
            for message in messages:
                warnings.warn(message, stacklevel=1)
        return [str(warning.message) for warning in seen]

    for name in ("lightning.pytorch", "lightning.fabric"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.INFO)
    return show


def test_what_a_user_can_act_on_stays(said):
    useful = "AMP with fp16 is not supported on CPU. Using `precision='bf16-mixed'` instead."
    assert said(useful, "The 'val_dataloader' does not have many workers") == [useful]
    assert logging.getLogger("lightning.pytorch").level == logging.WARNING
    assert logging.getLogger("lightning.fabric").level == logging.WARNING


def test_a_tiny_training_and_its_resumption_say_nothing_but_our_own(tiny_args, tmp_path):
    """On a machine that seems to have many cores, with fewer batches than steps between logs."""
    code = """
import os, sys
os.sched_getaffinity, os.cpu_count = lambda pid: set(range(16)), lambda: 16
from deeplab_lit import fit
args = sys.argv[1:]
fit.main([*args, "--trainer.max_steps=3", "--run=one"])
fit.main([*args, "--run=one", "--ckpt_path=last"])
"""
    command = [sys.executable, "-c", code, *tiny_args(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert run.stdout.count("Next  ") == 2
