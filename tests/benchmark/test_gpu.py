"""`benchmark gpu` in its small form, on the CPU."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deeplab_lit.benchmark import gpu
from deeplab_lit.benchmark.__main__ import main
from deeplab_lit.benchmark.equality import Check
from deeplab_lit.benchmark.gpu_report import Part, table


def run(out, *parts, minutes=1):
    options = ["--device=cpu", "--small=true", f"--out={out}", f"--minutes={minutes}"]
    main(["gpu", *options, f"--parts={json.dumps(parts)}"])
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("2_step", 11, "Folded normalization changes the logits by"),
        ("3_crf", 9, "on one thread; goal 100×: missed."),
        ("4_loader", 1, "the step takes"),
        ("5_compile", 2, "With all compilations"),
        ("6_training", 1, "2 steps of Shapes, from nothing"),
    ],
)
def test_every_part_leaves_a_table_and_what_it_says(name, rows, words, tmp_path, capsys):
    part = run(tmp_path, name[2:])[name]
    assert part["finished"], part["notes"]
    assert len(part["rows"]) >= rows
    assert any(words in note for note in part["notes"])
    report = (tmp_path / "report.md").read_text()
    assert f"## {name[2:]}: {part['title']}\n" in report
    assert "| --- |" in report
    assert words in capsys.readouterr().out


def test_results_of_other_settings_or_of_something_else_are_not_mixed(tmp_path, capsys):
    run(out := tmp_path / "out", "crf")
    run(out, "loader")
    assert {"3_crf", "4_loader"} <= json.loads((out / "results.json").read_text()).keys()
    with pytest.raises(SystemExit):
        main(["gpu", "--device=cpu", f"--out={out}", '--parts=["crf"]'])
    assert f"{out} holds results of other settings (small in" in capsys.readouterr().err
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(SystemExit):
        main(["gpu", "--device=cpu", "--small=true", f"--out={tmp_path}", '--parts=["crf"]'])
    assert f"{tmp_path} exists and holds something else" in capsys.readouterr().err


def test_checks_that_fail_or_break_are_told_and_hide_no_other(tmp_path, monkeypatch):
    def breaks(device):
        raise RuntimeError("no such kernel")

    checks = [
        Check("right", lambda device: {"x": 0.0}, {"x": 1e-3}),
        Check("wrong", lambda device: {"x": 1.0}, {"x": 1e-3}),
        Check("broken", breaks, {"x": 1e-3}),
        Check("large", breaks, {"x": 1e-3}, is_small=False),
    ]
    monkeypatch.setattr(gpu, "network_checks", lambda: checks)
    monkeypatch.setattr(gpu, "part_checks", list)
    monkeypatch.setattr(gpu, "training_checks", list)
    part = run(tmp_path, "equality")["1_equality"]
    verdicts = {row["check"]: row["verdict"] for row in part["rows"]}
    assert verdicts == {
        "right": "equal",
        "wrong": "x 1.0e+00, at most 1e-03 expected",
        "broken": "RuntimeError: no such kernel",
    }
    assert part["notes"][-1] == "2 of the checks failed."


def test_parts_run_in_order_each_in_its_share_and_the_last_in_what_is_left(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(
        gpu, "_in_a_process", lambda name, seconds, _: begun.append((name, seconds))
    )
    main(["gpu", "--device=cpu", "--small=true", f"--out={tmp_path}", "--minutes=10"])
    assert [name for name, _ in begun] == list(gpu.TASKS)
    shares = [task.share for task in gpu.TASKS.values()]
    for (_, seconds), share in zip(begun, shares, strict=True):
        assert seconds == pytest.approx(600 * share, abs=5)


class Endless:
    """A process that ends only when it is killed."""

    def __init__(self, words):
        self.words, self.calls = words, []

    def wait(self, timeout=None):
        if timeout is not None:
            raise subprocess.TimeoutExpired(self.words, timeout)
        self.calls.append("waited")

    def terminate(self):
        self.calls.append("terminated")

    def kill(self):
        self.calls.append("killed")


def test_a_part_that_does_not_end_is_ended(tmp_path, monkeypatch, capsys):
    processes = []
    monkeypatch.setattr(
        subprocess, "Popen", lambda words: processes.append(Endless(words)) or processes[-1]
    )
    options = gpu.Options(torch.device("cpu"), True, tmp_path, "camvid", None)
    gpu._in_a_process("crf", 6, options)
    (process,) = processes
    assert process.calls == ["terminated", "killed", "waited"]
    assert '--parts=["crf"]' in process.words
    assert "--minutes=0.1" in process.words
    assert "--camvid=camvid" in process.words
    assert "crf: ended, 6 s are over" in capsys.readouterr().out


def test_a_part_that_was_cut_off_leaves_what_it_had(tmp_path):
    part = Part(tmp_path, "1_x", "title", torch.device("cpu"), 60)
    part.row(a_step="1 ms")
    report = Path(tmp_path / "report.md").read_text()
    assert "## x: title (not complete)" in report
    assert "| a step |\n| --- |\n| 1 ms |" in report
    assert 0 < part.left() <= 60
    assert Part(tmp_path, "2_y", "title", torch.device("cpu"), 0).left() == 0


def test_a_table_has_the_columns_of_all_rows():
    assert table([{"a": "1"}, {"b": "x|y"}]) == [
        "| a | b |", "| --- | --- |", "| 1 |  |", r"|  | x\|y |",
    ]  # fmt: skip


def test_a_file_in_place_of_the_folder_is_refused_and_a_part_that_fails_is_told(
    tmp_path, monkeypatch, capsys
):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit) as stop:
        main(["gpu", "--device=cpu", "--small=true", f"--out={file}"])
    assert stop.value.code == 2
    assert f"error: {file} exists and holds something else" in capsys.readouterr().err
    monkeypatch.setattr(gpu, "sys", SimpleNamespace(executable="false"))
    gpu._in_a_process("crf", 6, gpu.Options(torch.device("cpu"), True, tmp_path, None, None))
    assert "crf: ended with code 1" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_a_sentence_says_how_to_try_it(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["gpu", f"--out={tmp_path}"])
    assert stop.value.code == 2
    assert "take --device cpu --small true" in capsys.readouterr().err
