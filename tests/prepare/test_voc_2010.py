from dataclasses import replace

import numpy as np
import pytest

from deeplab_lit.data import DataError, PascalContext, PersonPart
from deeplab_lit.data.classes import voc_color
from deeplab_lit.prepare import voc
from deeplab_lit.prepare.voc_2010 import (
    class_table,
    prepare_pascal_context,
    prepare_person_part,
    read_context,
    read_parts,
)

NAMES = list(PascalContext.classes)[1:]
# as the authors number theirs: by the alphabet, with 400 other labels in between, two made up here
LISTED = sorted([*NAMES, "accordion", "air conditioner"])
LABELS = {name: label for label, name in enumerate(LISTED, 1)}
LABELS_TXT = "".join(f"{label}: {name}\n" for name, label in LABELS.items()).encode()


@pytest.fixture
def context(server, devkit_2010, files):
    """The authors' archive: LabelMap of 61 labels in 16 bits; one image has no annotation."""
    maps = {id: files.mask(len(LISTED), seed).astype(np.uint16) for seed, id in enumerate("abc")}
    members = {f"trainval/2008_{id}.mat": files.mat(LabelMap=map) for id, map in maps.items()}
    members["labels.txt"] = LABELS_TXT
    files.tar(server.folder / "trainval.tar.gz", members, "w:gz")
    return maps


def test_the_459_labels_become_59_classes_and_background(source, context):
    prepare_pascal_context(source)
    data = PascalContext(str(source.root))
    assert data.split("train").ids == ["2008_a", "2008_b"]
    split = data.split("val")
    assert split.ids == ["2008_c"]
    expected = [
        [NAMES.index(LISTED[v - 1]) + 1 if v and LISTED[v - 1] in NAMES else 0 for v in row]
        for row in context["c"].tolist()
    ]
    np.testing.assert_array_equal(split.read(0)[1], expected)


def test_a_second_run_on_context_does_nothing(source, context, tree):
    prepare_pascal_context(source)
    before = tree(source.root)
    assert not [name for name in before if name.endswith(".mat")]
    prepare_pascal_context(source)
    assert tree(source.root) == before


def test_a_part_of_context_is_not_taken_for_the_whole(source, context, monkeypatch):
    monkeypatch.setitem(voc.DEVKITS, 2010, replace(voc.DEVKITS[2010], digest=None))
    with pytest.raises(DataError, match="train: 2, officially 4,998; val: 1, officially 5,105"):
        prepare_pascal_context(replace(source, unofficial=False))
    assert not (source.root / "VOCdevkit/VOC2010/SegmentationClassContext").exists()


def test_the_list_of_labels_must_name_all_classes(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(LABELS_TXT)
    table = class_table(path)
    assert table[LABELS["aeroplane"]] == 1
    assert table[LABELS["wood"]] == 59
    assert (table[0], table[LABELS["accordion"]]) == (0, 0)
    path.write_bytes(LABELS_TXT.replace(b": bedclothes", b": bedding"))
    with pytest.raises(DataError, match=r"labels\.txt does not list the classes bedclothes$"):
        class_table(path)
    path.write_bytes(b"\xef\xbb\xbf" + LABELS_TXT)
    np.testing.assert_array_equal(class_table(path), table)
    for more in (b"500: wood\n", b"-1: other\n", b"99999999999999: other\n"):
        path.write_bytes(LABELS_TXT + more)
        with pytest.raises(DataError, match="each name once, with a label from 0 to 65535"):
            class_table(path)
    path.write_text("<html>")
    with pytest.raises(DataError, match=r"labels\.txt: expected lines such as '2: aeroplane'"):
        class_table(path)


def test_a_label_that_is_not_listed_is_refused(files, tmp_path):
    (tmp_path / "a.mat").write_bytes(files.mat(LabelMap=np.full((4, 4), 5, np.uint16)))
    with pytest.raises(DataError, match=r"a\.mat: labels 5…5, expected 0…4"):
        read_context(tmp_path / "a.mat", np.zeros(5, np.uint8))


COLORS = np.array([voc_color(i) for i in range(256)], np.uint8)
IDS = ["2008_a", "2008_b", "2008_c"]


@pytest.fixture
def parts(server, devkit_2010, files):
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


def test_from_nothing_to_parts(source, parts, tree):
    prepare_person_part(source)
    data = PersonPart(str(source.root))
    assert data.split("train").ids == IDS[:2]
    assert data.split("val").ids == IDS[2:]
    for index, id in enumerate(IDS[:2]):
        np.testing.assert_array_equal(data.split("train").read(index)[1], parts[id])
    before = tree(source.root)
    prepare_person_part(source)
    assert tree(source.root) == before


def test_some_of_the_parts_are_not_taken_for_the_whole(source, parts, monkeypatch):
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
