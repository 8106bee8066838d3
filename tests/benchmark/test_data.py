import pytest
import torch

from deeplab_lit.benchmark import data as benchmark
from deeplab_lit.benchmark import pipelines
from deeplab_lit.benchmark.__main__ import main


def test_all_pipelines_are_timed_and_compared_with_ours(root, capsys, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(pipelines, "find_spec", lambda name: None)
    benchmark.data(str(root), crop_size=65, rounds=3)
    title, *lines, last = capsys.readouterr().out.splitlines()
    assert "9 images, crop 65, one thread, medians of 3 rounds" in title
    names = ["deeplab_lit", "decoding alone", "OpenCV, float32", "OpenCV, uint8", "torchvision v2"]
    assert [line.split("  ")[1] for line in lines] == names
    times = [float(line.split(" ms an image")[0].split()[-1]) for line in lines]
    ratios = [float(line.split("×")[0].split()[-1]) for line in lines]
    assert ratios[0] == 1
    assert all(number > 0 for number in times + ratios)
    assert "pip install albumentations" in last  # of what is missing the installation is said


def test_a_crop_that_no_network_takes_gets_a_sentence(root, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", f"--root={root}", "--crop_size=9000"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: crop_size must be in 33…8192 pixels, got 9000\n"


def test_a_wrong_folder_gets_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", f"--root={tmp_path}"])
    assert stop.value.code == 2
    assert "no PASCAL VOC 2012 there" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["data", "evaluation"])
def test_the_option_that_was_typed_is_named(command, capsys):
    options = ["--backbone=resnet10_quarter"] if command == "evaluation" else []
    with pytest.raises(SystemExit):
        main([command, "--root=/nowhere", *options])
    error = capsys.readouterr().err
    assert error.startswith("error: --root /nowhere: no PASCAL VOC 2012 there")
    assert "--data.root" not in error
