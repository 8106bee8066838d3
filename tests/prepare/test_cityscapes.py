from dataclasses import replace

import numpy as np
import pytest

from deeplab_lit.data import Cityscapes, DataError
from deeplab_lit.prepare.cityscapes import prepare_cityscapes

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


def test_the_two_zips_become_what_the_data_class_reads(source, zips, server, capsys):
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


def test_a_second_run_does_nothing(source, zips, tree, capsys):
    prepare_cityscapes(source)
    before = tree(source.root)
    capsys.readouterr()
    prepare_cityscapes(source)
    assert tree(source.root) == before
    assert capsys.readouterr().out == ""


def test_without_the_zips_it_says_where_people_get_them(source):
    with pytest.raises(DataError, match=r"leftImg8bit_trainvaltest\.zip is missing.*cityscapes-da"):
        prepare_cityscapes(replace(source, mirror=None))


def test_a_part_of_it_is_not_taken_for_the_whole(source, zips):
    with pytest.raises(DataError, match="val: 1, officially 500"):
        prepare_cityscapes(replace(source, unofficial=False))
    assert not (source.root / "leftImg8bit").exists()
