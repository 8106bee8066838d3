from dataclasses import replace

import numpy as np
import pytest

from deeplab_lit.data import ADE20K, Cityscapes, DataError
from deeplab_lit.prepare.as_released import prepare_ade20k, prepare_cityscapes


@pytest.fixture
def ade20k(server, files):
    top, members = "ADEChallengeData2016", {}
    for folder, ids in (
        ("training", ["ADE_train_1", "ADE_train_2"]),
        ("validation", ["ADE_val_1"]),
    ):
        members |= {f"{top}/images/{folder}/{id}.jpg": files.jpg() for id in ids}
        members |= {
            f"{top}/annotations/{folder}/{id}.png": files.png(files.mask(150)) for id in ids
        }
    members |= {f"{top}/objectInfo150.txt": b"Idx\tRatio\tTrain\tVal\tName\n"}
    files.zip(server.folder / f"{top}.zip", members)


def test_ade20k_becomes_what_its_data_class_reads(source, ade20k, tree, files):
    hint = prepare_ade20k(source)
    data = ADE20K(hint.rpartition(" ")[2])
    assert data.split("train").ids == ["ADE_train_1", "ADE_train_2"]
    mask, raw = data.split("val").read(0)[1], files.mask(150).astype(int)
    np.testing.assert_array_equal(mask, np.where(raw > 0, raw - 1, 255))
    before = tree(source.root)
    prepare_ade20k(source)
    assert tree(source.root) == before


def test_another_archive_than_ade20ks_is_not_taken(source, ade20k):
    with pytest.raises(DataError, match="its sha1 is"):
        prepare_ade20k(replace(source, unofficial=False))
    assert not list(source.root.iterdir())


FRAMES = {"train": "aachen/aachen_000000_000019", "val": "frankfurt/frankfurt_000000_000294"}


@pytest.fixture
def zips(source, files):
    """The two archives in the root, with a frame of train and of val."""
    members = {
        f"leftImg8bit/{s}/{f}_leftImg8bit.png": files.png(np.zeros((20, 30, 3)))
        for s, f in FRAMES.items()
    }
    files.zip(source.root / "leftImg8bit_trainvaltest.zip", {"README": b"x", **members})
    members = {
        f"gtFine/{s}/{f}_gtFine_labelIds.png": files.png(np.full((20, 30), 7))
        for s, f in FRAMES.items()
    }
    members |= {f"gtFine/{s}/{f}_gtFine_polygons.json": b"{}" for s, f in FRAMES.items()}
    files.zip(source.root / "gtFine_trainvaltest.zip", members)


def test_cityscapes_zips_become_what_its_data_class_reads(source, zips, server, capsys):
    hint = prepare_cityscapes(source)
    assert hint == f"--data Cityscapes --data.root {source.root}"
    data = Cityscapes(str(source.root))
    assert data.split("train").ids == ["aachen_000000_000019"]
    image, mask = data.split("val").read(0)
    assert image.shape == (20, 30, 3)
    assert (mask == 0).all()  # label id 7 is road
    said = capsys.readouterr().out
    assert "(leftImg8bit)" in said
    assert "train: 1, officially 2,975; val: 1, officially 500; test: 0, officially 1,525" in said
    assert not server.requests


def test_a_second_run_on_cityscapes_does_nothing(source, zips, tree, capsys):
    prepare_cityscapes(source)
    before = tree(source.root)
    capsys.readouterr()
    prepare_cityscapes(source)
    assert tree(source.root) == before
    assert capsys.readouterr().out == ""


def test_without_the_zips_of_cityscapes_it_says_where_people_get_them(source):
    with pytest.raises(DataError, match=r"leftImg8bit_trainvaltest\.zip is missing.*cityscapes-da"):
        prepare_cityscapes(replace(source, mirror=None))


def test_a_part_of_cityscapes_is_not_taken_for_the_whole(source, zips):
    with pytest.raises(DataError, match="val: 1, officially 500"):
        prepare_cityscapes(replace(source, unofficial=False))
    assert not (source.root / "leftImg8bit").exists()
