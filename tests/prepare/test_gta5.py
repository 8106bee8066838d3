import re
from dataclasses import replace

import numpy as np
import pytest

from deeplab_lit.data import GTA5, DataError
from deeplab_lit.prepare.gta5 import prepare_gta5

FRAMES = 22  # of which split.mat says for two each what they are: train, val, test


@pytest.fixture
def archives(server, files):
    """All 21 archives, the last with one frame less, so that the numbers of frames are odd."""
    for number in range(1, 11):
        frames = range(2 * number - 1, 2 * number + 1) if number < 10 else [19]
        images = {f"images/{id:05}.png": files.png(np.zeros((20, 30, 3))) for id in frames}
        labels = {f"labels/{id:05}.png": files.png(np.full((20, 30), 7)) for id in frames}
        files.zip(server.folder / f"{number:02}_images.zip", images)
        files.zip(server.folder / f"{number:02}_labels.zip", labels)
    ids = {"trainIds": [[1], [2]], "valIds": [[5], [6]], "testIds": [[11]]}
    members = {
        "read_mapping/split.mat": files.mat(**ids),
        "read_mapping/mapping.mat": b"x",
        "read_mapping/read_label.m": b"x",
    }
    files.zip(server.folder / "read_mapping.zip", members)


def test_twenty_zips_and_the_split_become_what_its_data_class_reads(source, archives, capsys):
    hint = prepare_gta5(source)
    assert hint == f"--data GTA5 --data.root {source.root}"
    data = GTA5(str(source.root))
    assert data.training().ids == [f"{id:05}" for id in range(1, 20)]
    assert data.split("val").ids == ["00005", "00006"]
    image, mask = data.split("test").read(0)
    assert image.shape == (20, 30, 3)
    assert (mask == 0).all()  # label id 7 is road
    said = capsys.readouterr().out
    assert "images: 19, officially 24,966" in said
    assert "labels: 19, officially 24,966" in said
    assert len(re.findall("has no published checksum|is not checked", said)) == 21
    assert not (source.root / "mapping.mat").exists()


def test_a_second_run_on_gta5_does_nothing(source, archives, server, tree, capsys):
    prepare_gta5(source)
    before, asked = tree(source.root), len(server.requests)
    capsys.readouterr()
    prepare_gta5(source)
    assert tree(source.root) == before
    assert len(server.requests) == asked
    assert capsys.readouterr().out == ""


def test_stopped_between_two_archives_of_gta5_it_goes_on(source, archives, server):
    missing = (server.folder / "04_images.zip").rename(server.folder / "later")
    with pytest.raises(DataError, match=r"04_images\.zip: the download did not finish"):
        prepare_gta5(source)
    assert [path.name for path in source.root.glob("images*")] == ["images.part"]
    missing.rename(server.folder / "04_images.zip")
    prepare_gta5(source)
    assert len(list((source.root / "images").iterdir())) == 19
    asked = [path for path, _ in server.requests]
    assert asked.count("/01_images.zip") == 1  # what lies there is not downloaded again


def test_zips_that_lie_there_are_not_downloaded(source, archives, server):
    for path in list(server.folder.iterdir()):
        path.rename(source.root / path.name)
    prepare_gta5(source)
    assert not server.requests


def test_a_part_of_gta5_is_not_taken_for_the_whole(source, archives):
    with pytest.raises(DataError, match="images: 19, officially 24,966"):
        prepare_gta5(replace(source, unofficial=False))
    assert not (source.root / "images").exists()


def test_without_the_split_images_and_labels_are_in_place_all_the_same(source, archives, server):
    (server.folder / "read_mapping.zip").unlink()
    with pytest.raises(DataError, match=r"Images and labels are in place, and --data GTA5 .*mat"):
        prepare_gta5(source)
    assert GTA5(str(source.root)).training().ids[0] == "00001"
