from dataclasses import replace

import numpy as np
import pytest

from deeplab_lit.data import ADE20K, DataError
from deeplab_lit.prepare.ade20k import prepare_ade20k


@pytest.fixture
def archive(server, files):
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


def test_the_archive_becomes_what_the_data_class_reads(source, archive, tree, files):
    hint = prepare_ade20k(source)
    data = ADE20K(hint.rpartition(" ")[2])
    assert data.split("train").ids == ["ADE_train_1", "ADE_train_2"]
    mask, raw = data.split("val").read(0)[1], files.mask(150).astype(int)
    np.testing.assert_array_equal(mask, np.where(raw > 0, raw - 1, 255))
    before = tree(source.root)
    prepare_ade20k(source)
    assert tree(source.root) == before


def test_another_archive_is_not_taken(source, archive):
    with pytest.raises(DataError, match="its sha1 is"):
        prepare_ade20k(replace(source, unofficial=False))
    assert not list(source.root.iterdir())
