from dataclasses import replace

import numpy as np
import pytest

from deeplab_lit.data import DataError, PersonPart
from deeplab_lit.data.classes import voc_color
from deeplab_lit.prepare import voc
from deeplab_lit.prepare.person_part import prepare_person_part, read_parts

COLORS = np.array([voc_color(i) for i in range(256)], np.uint8)
IDS = ["2008_a", "2008_b", "2008_c"]


@pytest.fixture
def annotations(server, devkit_2010, files):
    """The released archive: palette PNGs, and lists of ids and of paths."""
    masks = {id: files.mask(6, seed) for seed, id in enumerate(IDS)}
    top = "pascal_person_part"
    members = {f"{top}/{top}_gt/{id}.png": files.png(m, COLORS) for id, m in masks.items()}
    members |= {
        f"{top}/{top}_gt/.DS_Store": b"x",
        f"__MACOSX/{top}/{top}_gt/._{IDS[0]}.png": b"x",
        f"{top}/{top}_trainval_list/train_id.txt": files.lines(IDS[:2]),
        f"{top}/{top}_trainval_list/val_id.txt": files.lines(IDS[2:]),
        f"{top}/{top}_trainval_list/train.txt": b"/JPEGImages/2008_a.jpg /gt/2008_a.png\n",
    }
    files.zip(server.folder / "pascal_person_part.zip", members)
    return masks


def test_from_nothing_to_parts(source, annotations, tree):
    prepare_person_part(source)
    data = PersonPart(str(source.root))
    assert data.split("train").ids == IDS[:2]
    assert data.split("val").ids == IDS[2:]
    for index, id in enumerate(IDS[:2]):
        np.testing.assert_array_equal(data.split("train").read(index)[1], annotations[id])
    before = tree(source.root)
    prepare_person_part(source)
    assert tree(source.root) == before


def test_a_part_of_it_is_not_taken_for_the_whole(source, annotations, monkeypatch):
    monkeypatch.setitem(voc.DEVKITS, 2010, replace(voc.DEVKITS[2010], digest=None))
    with pytest.raises(DataError, match="train: 2, officially 1,716; val: 1, officially 1,817"):
        prepare_person_part(replace(source, unofficial=False))
    assert not (source.root / "VOCdevkit/VOC2010/SegmentationPersonPart").exists()


@pytest.mark.parametrize("kind", ["palette", "gray", "colors"])
def test_masks_of_indices_and_of_colors_say_the_same(files, tmp_path, kind):
    mask, path = files.mask(6), tmp_path / "a.png"
    content = {"palette": (mask, COLORS), "gray": (mask,), "colors": (COLORS[mask],)}[kind]
    path.write_bytes(files.png(*content))
    np.testing.assert_array_equal(read_parts(path), mask)


@pytest.mark.parametrize("kind", ["indices", "colors", "broken"])
def test_anything_else_is_refused(files, tmp_path, kind):
    mask = files.mask(7)
    path = tmp_path / "a.png"
    path.write_bytes(files.png(mask if kind == "indices" else COLORS[mask]))
    if kind == "broken":
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"a\.png: (expected the values 0…6|cannot be read)"):
        read_parts(path)
