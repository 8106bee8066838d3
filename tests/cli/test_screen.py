import logging
import shlex
import subprocess
import sys
import warnings

import pytest
import torch
from lightning.pytorch import Trainer

from deeplab_lit.cli.screen import (
    after_fit,
    after_validate,
    introduce,
    quieten,
    scored,
    tell_precision,
)
from deeplab_lit.network import half_precision

SCORES = {
    "step": 8,
    "miou": 0.5,
    "pixel_accuracy": 0.75,
    "mean_accuracy": 0.625,
    "fw_iou": 0.25,
    "iou": {"sky": 0.25, "road": 0.75, "tram": None},
}


def test_introduce_names_every_group_with_its_size_and_rate(make_module, capsys):
    module = make_module(lr=0.1, output_stride=8, head="aspp")
    introduce(module, "drawings", "runs/a/b")
    out = capsys.readouterr().out
    head = 2 * 128 * 9 * 7
    assert f"head.weight {head:,} at 1" in out
    assert "head.bias 14 at 2" in out
    total = sum(p.numel() for p in module.parameters())
    assert f"backbone {total - head - 14:,} at 0.1" in out
    assert f"aspp [2, 4], scales [1.0]: {total:,} parameters" in out
    assert "drawings" in out
    assert "runs/a/b" in out


def test_after_fit_tells_score_files_and_the_next_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my runs/x"
    after_fit(SCORES, str(folder / "checkpoints/best.ckpt"), folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Best mIoU 50.00 % at step 8"
    assert "  road             75.00" in lines
    assert "  tram                 –" in lines
    assert lines[-4] == "Checkpoint  my runs/x/checkpoints/best.ckpt"
    assert lines[-3] == "Pictures    my runs/x/predictions.png"
    assert "validate --ckpt_path 'my runs/x/checkpoints/best.ckpt'" in lines[-1]


def test_the_next_command_is_the_last_line_whatever_else_is_said(tmp_path, capsys):
    place = tmp_path / "my runs/wandb/offline-run-1"
    after_fit(SCORES, str(tmp_path / "best.ckpt"), tmp_path, wandb=str(place), unscored=True)
    *_, wandb, unscored, following = capsys.readouterr().out.splitlines()
    assert shlex.split(wandb)[0] == "W&B"
    assert shlex.split(wandb)[2:] == ["-m", "wandb", "sync", str(place)]
    assert "last.ckpt" in unscored
    assert following.startswith("Next  ")
    after_fit(SCORES, "", tmp_path, wandb="https://wandb.ai/us/x")
    assert capsys.readouterr().out.splitlines()[-1] == "W&B         https://wandb.ai/us/x"


def test_after_validate_the_next_command_can_be_copied(tmp_path, capsys):
    words = ["--ckpt_path", "my runs/best.ckpt", "--crf"]
    after_validate(SCORES, "a.ckpt", tmp_path, following=["validate", *words])
    last = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(last)[2:] == ["-m", "deeplab_lit.validate", *words]


def test_without_a_validation_there_is_no_table(tmp_path, capsys):
    after_fit(None, "", tmp_path)
    said = capsys.readouterr().out
    assert said.startswith("Done. No validation took place")
    assert "--trainer.val_check_interval" in said
    assert said.endswith(f"Run folder: {tmp_path}\n")
    last = tmp_path / "checkpoints/last.ckpt"
    last.parent.mkdir()
    last.write_bytes(b"")
    after_fit(None, "", tmp_path)
    following = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(following)[2:] == ["-m", "deeplab_lit.validate", "--ckpt_path", str(last)]


def test_after_validate_says_what_was_scored(tmp_path, capsys):
    after_validate(SCORES | {"miou": None}, "a.ckpt on VOC val", tmp_path)
    assert "a.ckpt on VOC val: mIoU –" in capsys.readouterr().out


def test_a_part_of_the_validation_split_is_called_so(tmp_path, capsys):
    after_fit(SCORES | {"images": 37, "images_in_split": 79}, "", tmp_path)
    assert "Scored      37 of 79 images of the validation split" in capsys.readouterr().out
    after_fit(SCORES | {"images": 79, "images_in_split": 79}, "", tmp_path)
    assert "Scored" not in capsys.readouterr().out
    assert scored({"images": 1, "images_in_split": 1}) == "1 image"
    assert scored({"images": 1, "images_in_split": 2}) == "1 of 2 images"


def test_a_best_without_a_score_is_not_passed_over(tmp_path, capsys):
    after_fit(SCORES | {"miou": None}, "", tmp_path)
    assert "WARNING: all pixels scored were void" in capsys.readouterr().out


def test_spawned_processes_leave_their_scores_in_a_file_that_is_named(tmp_path, capsys):
    """With the strategy ddp_spawn, the process that was typed has seen no validation itself."""
    after_fit(None, "best.ckpt", tmp_path)
    shown = capsys.readouterr().out
    assert str(tmp_path / "results.json") in shown
    assert "No validation" not in shown


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
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert run.stdout.count("Next  ") == 2


SLOW = (
    "WARNING: {} is slower than float32 on this processor: a 3×3 convolution takes 12.6 times as "
    "long. Take --trainer.precision 32-true\n"
)
COARSE = (
    "WARNING: --trainer.precision {0}-true keeps the weights themselves in half precision, which "
    "loses every step smaller than {1} % of a weight. Take {0}-mixed, which keeps them in float32\n"
)


@pytest.mark.parametrize(
    ("precision", "in_training", "in_scoring"),
    [
        ("bf16-mixed", SLOW.format("bfloat16"), SLOW.format("bfloat16")),
        ("16-mixed", SLOW.format("bfloat16"), SLOW.format("bfloat16")),  # as Lightning has it
        (
            "bf16-true",
            COARSE.format("bf16", 0.2) + SLOW.format("bfloat16"),
            SLOW.format("bfloat16"),
        ),
        ("16-true", COARSE.format("16", 0.02) + SLOW.format("float16"), SLOW.format("float16")),
        ("32-true", "", ""),
        ("64-true", "", ""),
    ],
)
@pytest.mark.filterwarnings("ignore:You passed")
def test_a_precision_that_is_slow_or_coarse_is_said(
    precision, in_training, in_scoring, monkeypatch, capsys
):
    monkeypatch.setattr(half_precision, "time_ratio", lambda dtype, *, trains: 12.64)
    trainer = Trainer(accelerator="cpu", precision=precision, logger=False, barebones=True)
    capsys.readouterr()
    tell_precision(trainer, trains=True)
    assert capsys.readouterr().out == in_training
    tell_precision(trainer, trains=False)
    assert capsys.readouterr().out == in_scoring


def test_a_step_in_half_precision_is_lost_below_the_share_that_is_named():
    for dtype, share in ((torch.bfloat16, 0.00195), (torch.float16, 0.000244)):
        weight = torch.linspace(1, 4, 1000).to(dtype)
        assert torch.equal(weight, weight - (weight.float() * share * 0.99).to(dtype))
