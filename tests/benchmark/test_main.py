import numpy as np
import pytest
from PIL import Image

from deeplab_lit.benchmark.__main__ import main


def test_step_measures_the_setting_beside_plain_float32(capsys):
    options = ["--batch_size=1", "--crop_size=65", "--rounds=2", "--backbone=resnet10_quarter"]
    options += ["--norm=batch", "--scales=[1.0]", "--gradient_checkpointing=true"]
    main(["step", *options])
    title, plain, variant = capsys.readouterr().out.splitlines()
    assert "1 image of 65×65" in title
    assert plain.split()[0] == "float32"
    assert variant.split()[:3] == ["bfloat16", "channels_last", "gradient_checkpointing"]
    for line in (plain, variant):
        seconds = float(line.split(" s a step")[0].split()[-1])
        rate = float(line.split(" images/s")[0].split()[-1])
        assert rate == pytest.approx(1 / seconds, rel=0.1)


def test_a_wrong_folder_gets_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", f"--root={tmp_path}"])
    assert stop.value.code == 2
    assert "no PASCAL VOC 2012 there" in capsys.readouterr().err


def test_the_crfs_backends_are_compared_on_the_same_images(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(256, size=(20, 31, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    main(["crf", f"--images={tmp_path}", "--num_images=2", "--threads=2"])
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith("2 images, 21 classes, 2 threads")
    backends = {line.split(" ms")[0].split()[-2] for line in lines}
    assert "torch" in backends
    assert len(lines) == 3 * len(backends)
    assert all("labels equal 100" in line or "labels equal 99.9" in line for line in lines)
