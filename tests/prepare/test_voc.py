from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.voc import DATASET_YEAR_DICT

from deeplab_lit.data import VOC, DataError
from deeplab_lit.prepare import voc
from deeplab_lit.prepare.voc import devkit, prepare_voc


def test_the_official_archives_are_those_of_torchvision():
    for year, archive in voc.DEVKITS.items():
        known = DATASET_YEAR_DICT[str(year)]
        assert (archive.name, archive.url) == (known["filename"], known["url"])
        assert archive.digest == f"md5:{known['md5']}"


def test_from_nothing_to_train_aug(source, voc_archives, server):
    hint = prepare_voc(source)
    data = VOC(str(source.root))
    assert f"--data.root {source.root}" in hint
    assert data.split("train").ids == ["2007_1", "2007_2"]
    assert data.split("val").ids == ["2007_3"]
    assert data.split("train_aug").ids == ["2007_1", "2007_2", "2008_4", "2008_5"]
    assert sorted(path for path, _ in server.requests) == [
        "/VOCtrainval_11-May-2012.tar",
        "/benchmark.tgz",
    ]


def test_a_second_run_does_nothing_even_without_the_archives(source, voc_archives, server, tree):
    prepare_voc(source)
    for archive in source.root.glob("*.t*"):
        archive.unlink()
    before, asked = tree(source.root), len(server.requests)
    prepare_voc(source)
    assert tree(source.root) == before
    assert len(server.requests) == asked


def test_without_leave_to_take_another_archive_nothing_is_left(source, voc_archives):
    with pytest.raises(DataError, match="its md5 is"):
        prepare_voc(replace(source, unofficial=False))
    assert not list(source.root.iterdir())


def test_unpacking_that_was_interrupted_goes_on(source, voc_archives, server):
    content = (server.folder / "VOCtrainval_11-May-2012.tar").read_bytes()
    (source.root / "VOCtrainval_11-May-2012.tar").write_bytes(content[:6000])
    with pytest.raises(DataError, match="is damaged"):
        devkit(source, 2012)
    assert not (source.root / "VOCdevkit/VOC2012").exists()
    started = list((source.root / "VOCdevkit/VOC2012.part").rglob("*.*"))
    assert started
    (source.root / "VOCtrainval_11-May-2012.tar").unlink()
    folder = devkit(source, 2012)
    assert not (source.root / "VOCdevkit/VOC2012.part").exists()
    with Image.open(folder / "SegmentationClass/2007_1.png") as mask:
        assert mask.mode == "P"
        assert np.asarray(mask).max() == 255
