from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from deeplab_lit.data import VOC, DataError
from deeplab_lit.prepare import voc
from deeplab_lit.prepare.voc import SBD, add_sbd, devkit, prepare_voc


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


TRAIN, VAL = ["2007_1", "2007_2"], ["2007_3"]


@pytest.fixture
def folder(source, voc_archives):
    return devkit(source, 2012)


def test_the_official_archive_of_sbd_is_that_of_torchvision():
    assert (SBD.name, SBD.url) == (SBDataset.filename, SBDataset.url)
    assert SBD.digest == f"md5:{SBDataset.md5}"


def test_train_aug_is_sbd_and_voc_train_without_voc_val(source, folder, voc_archives):
    add_sbd(source, folder, TRAIN, VAL)
    lists = folder / "ImageSets/Segmentation"
    assert (lists / "train_aug.txt").read_text().split() == [*TRAIN, "2008_4", "2008_5"]
    both = (lists / "trainval_aug.txt").read_text().split()
    assert both == [*TRAIN, *VAL, "2008_4", "2008_5"]
    masks = sorted(path.stem for path in (folder / "SegmentationClassAug").iterdir())
    assert masks == both
    assert sorted(p.name for p in folder.iterdir()) == [
        *("ImageSets", "JPEGImages", "SegmentationClass", "SegmentationClassAug"),
    ]


def test_voc_keeps_its_own_masks_and_the_others_are_sbds(source, folder, voc_archives, files):
    add_sbd(source, folder, TRAIN, VAL)
    for id in (*TRAIN, *VAL):
        own = (folder / f"SegmentationClass/{id}.png").read_bytes()
        assert (folder / f"SegmentationClassAug/{id}.png").read_bytes() == own
    with Image.open(folder / "SegmentationClassAug/2008_4.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), files.mask(20, seed=4))
    image, mask = VOC(str(source.root)).split("train_aug").read(3)
    assert image.shape[:2] == mask.shape


def test_a_part_of_sbd_is_not_taken_for_the_whole(source, folder, voc_archives, monkeypatch):
    monkeypatch.setattr(voc, "SBD", replace(SBD, digest=None))
    with pytest.raises(DataError) as no:
        add_sbd(replace(source, unofficial=False), folder, TRAIN, VAL)
    for part in ("VOC train: 2, officially 1,464", "masks of SBD: 4, officially 11,355"):
        assert part in str(no.value)
    assert "train_aug: 4, officially 10,582; trainval_aug: 5, officially 12,031" in str(no.value)
    assert not (folder / "SegmentationClassAug").exists()
    assert not (folder / "ImageSets/Segmentation/train_aug.txt").exists()


def test_images_that_are_missing_are_named(source, folder):
    (folder / "JPEGImages/2008_5.jpg").unlink()
    with pytest.raises(DataError, match=r"lacks 1 file .*JPEGImages/2008_5\.jpg"):
        add_sbd(source, folder, TRAIN, VAL)


def test_a_conversion_that_was_interrupted_goes_on(source, folder, files):
    part = folder / "SegmentationClassAug.part"
    part.mkdir()
    (part / "2008_4.png").write_bytes(files.png(files.mask(3)))  # as if done already
    add_sbd(source, folder, TRAIN, VAL)
    assert (folder / "SegmentationClassAug/2008_4.png").read_bytes() == files.png(files.mask(3))
    assert (folder / "SegmentationClassAug/2008_5.png").is_file()
    assert not part.exists()
