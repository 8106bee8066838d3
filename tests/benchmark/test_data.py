import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.benchmark import data as benchmark
from deeplab_lit.benchmark.__main__ import main
from deeplab_lit.data.voc import VOC


@pytest.fixture
def root(tmp_path):
    voc = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(9):
        image = np.full((90, 70, 3), (10 * i, 100, 200), np.uint8)
        cv2.imwrite(str(voc / f"JPEGImages/{i}.jpg"), image)
        mask = rng.integers(21, size=(90, 70), dtype=np.uint8)
        Image.fromarray(mask).save(voc / f"SegmentationClass/{i}.png")
    ids = "\n".join(map(str, range(9)))
    for split in ("train", "val"):
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text(ids)
    return voc


def test_all_pipelines_are_timed_and_compared_with_ours(root, capsys, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    benchmark.data(str(root), crop_size=65, rounds=3)
    title, *lines = capsys.readouterr().out.splitlines()
    assert "9 images, crop 65, one thread" in title
    assert len(lines) == 3
    times = [float(line.split(" ms")[0].split()[-1]) for line in lines]
    ratios = [float(line.split()[-1].rstrip("×")) for line in lines]
    assert ratios[0] == 1
    assert all(time > 0 for time in times)


@pytest.mark.parametrize("as_float", [True, False])
def test_the_baseline_makes_what_a_port_would_train_on(root, as_float):
    samples = list(benchmark._usual(VOC(str(root)).split("train"), 65, 0, as_float=as_float))
    assert [id for *_, id in samples] == [str(i) for i in range(9)]
    for i, (image, mask, _) in enumerate(samples):
        assert image.shape == (3, 65, 65)
        assert mask.shape == (65, 65)
        assert image.dtype == (np.float32 if as_float else np.uint8)
        assert set(np.unique(mask)) <= {*range(21), 255}
        blue = 10 * i - (104.008 if as_float else 0)
        assert abs(float(image[0, 0, 0]) - blue) < 3 or mask[0, 0] == 255


def test_a_wrong_folder_gets_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", f"--root={tmp_path}"])
    assert stop.value.code == 2
    assert "no PASCAL VOC 2012 there" in capsys.readouterr().err
