from dataclasses import replace

import numpy as np
import pytest

from deeplab_lit.data import CocoStuff10k, CocoStuff164k, DataError
from deeplab_lit.prepare.coco_stuff import (
    prepare_coco_stuff_10k,
    prepare_coco_stuff_164k,
    read_labels,
)

IDS = ["COCO_train2014_000000000077", "COCO_train2014_000000000149"]


@pytest.fixture
def ten_k(server, files):
    maps = {id: files.mask(182, seed) for seed, id in enumerate(IDS)}
    members = {f"images/{id}.jpg": files.jpg() for id in IDS}
    members |= {f"annotations/{id}.mat": files.mat(S=m, names="x") for id, m in maps.items()}
    members |= {
        "imageLists/train.txt": files.lines(IDS[:1]),
        "imageLists/test.txt": files.lines(IDS[1:]),
        "imageLists/all.txt": files.lines(IDS),
    }
    files.zip(server.folder / "cocostuff-10k-v1.1.zip", members)
    return maps


@pytest.fixture
def all_of_it(server, files):
    for split, ids in (("train2017", "ab"), ("val2017", "c")):
        images = {f"{split}/{id}.jpg": files.jpg() for id in ids}
        files.zip(server.folder / f"{split}.zip", images)
    members = {f"train2017/{id}.png": files.png(files.mask(181)) for id in "ab"}
    members |= {"val2017/c.png": files.png(np.full((20, 30), 255))}
    files.zip(server.folder / "stuffthingmaps_trainval2017.zip", members)


def test_10k_becomes_what_the_data_class_reads(source, ten_k, tree):
    hint = prepare_coco_stuff_10k(source)
    data = CocoStuff10k(hint.rpartition(" ")[2])
    assert [data.split(name).ids for name in ("train", "val")] == [IDS[:1], IDS[1:]]
    mask = data.split("val").read(0)[1]
    expected = [[v - 1 if v else 255 for v in row] for row in ten_k[IDS[1]].tolist()]
    np.testing.assert_array_equal(mask, expected)
    before = tree(source.root)
    assert not [name for name in before if name.endswith(".mat")]
    prepare_coco_stuff_10k(source)
    assert tree(source.root) == before


def test_164k_becomes_what_the_data_class_reads(source, all_of_it, tree, files, capsys):
    hint = prepare_coco_stuff_164k(source)
    data = CocoStuff164k(hint.rpartition(" ")[2])
    assert [data.split(name).ids for name in ("train", "val")] == [["a", "b"], ["c"]]
    np.testing.assert_array_equal(data.split("train").read(1)[1], files.mask(181))
    assert "train2017: 2, officially 118,287" in capsys.readouterr().out
    before = tree(source.root)
    prepare_coco_stuff_164k(source)
    assert tree(source.root) == before


def test_a_part_of_it_is_not_taken_for_the_whole(source, ten_k, all_of_it):
    strict = replace(source, unofficial=False)
    with pytest.raises(DataError, match="train: 1, officially 9,000; val: 1, officially 1,000"):
        prepare_coco_stuff_10k(strict)
    with pytest.raises(DataError, match=r"train2017\.zip.* its sha1 is"):
        prepare_coco_stuff_164k(strict)
    assert not list(source.root.glob("cocostuff-*k"))


def test_labels_that_coco_stuff_does_not_have_are_refused(files, tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(files.mat(S=np.array([[0, 1], [91, 182]], np.uint8)))
    np.testing.assert_array_equal(read_labels(path), [[255, 0], [90, 181]])
    path.write_bytes(files.mat(S=np.array([[0, 183]], np.uint8)))
    with pytest.raises(DataError, match=r"a\.mat: labels 0…183, expected 0…182"):
        read_labels(path)
