from dataclasses import replace

import numpy as np
import pytest

from deeplab_lit.data import DataError, PascalContext
from deeplab_lit.prepare import voc
from deeplab_lit.prepare.pascal_context import class_table, prepare_pascal_context, read_context

NAMES = list(PascalContext.classes)[1:]
# as the authors number theirs: by the alphabet, with 400 other labels in between, two made up here
LISTED = sorted([*NAMES, "accordion", "air conditioner"])
LABELS = {name: label for label, name in enumerate(LISTED, 1)}
LABELS_TXT = "".join(f"{label}: {name}\n" for name, label in LABELS.items()).encode()


@pytest.fixture
def annotations(server, devkit_2010, files):
    """The authors' archive: LabelMap of 61 labels in 16 bits; one image has no annotation."""
    maps = {id: files.mask(len(LISTED), seed).astype(np.uint16) for seed, id in enumerate("abc")}
    members = {f"trainval/2008_{id}.mat": files.mat(LabelMap=map) for id, map in maps.items()}
    members["labels.txt"] = LABELS_TXT
    files.tar(server.folder / "trainval.tar.gz", members, "w:gz")
    return maps


def test_the_459_labels_become_59_classes_and_background(source, annotations):
    prepare_pascal_context(source)
    data = PascalContext(str(source.root))
    assert data.split("train").ids == ["2008_a", "2008_b"]
    split = data.split("val")
    assert split.ids == ["2008_c"]
    expected = [
        [NAMES.index(LISTED[v - 1]) + 1 if v and LISTED[v - 1] in NAMES else 0 for v in row]
        for row in annotations["c"].tolist()
    ]
    np.testing.assert_array_equal(split.read(0)[1], expected)


def test_a_second_run_does_nothing(source, annotations, tree):
    prepare_pascal_context(source)
    before = tree(source.root)
    assert not [name for name in before if name.endswith(".mat")]
    prepare_pascal_context(source)
    assert tree(source.root) == before


def test_a_part_of_it_is_not_taken_for_the_whole(source, annotations, monkeypatch):
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
