import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data.image import DataError
from deeplab_lit.data.voc import VOC
from deeplab_lit.segment import image_labels
from deeplab_lit.segment.image_labels import agreement, read_image_labels
from deeplab_lit.segment.images import Job

CLASSES = list(VOC.classes)
IMAGES = {
    Path(name): Path(f"JPEGImages/{name}.jpg") for name in ("2007_000032", "2007_000039", "sub/cat")
}
EXPECTED = {"2007_000032": (0, 1, 15), "2007_000039": (0, 20), "sub/cat": (0,)}
LINES = """# of 2007
2007_000032 0 14
JPEGImages/2007_000039.jpg tvmonitor

cat
"""


def vector(*numbers):
    values = np.zeros(20, np.float32)
    values[list(numbers)] = 1
    return values


def saved(tmp_path, content):
    np.save(path := tmp_path / "cls_labels.npy", content, allow_pickle=True)
    return path


def read(path, images=IMAGES, classes=CLASSES):
    found = read_image_labels(path, images, classes)
    return {str(name): indices for name, indices in found.present.items()}, found.about


@pytest.mark.parametrize(
    "lines",
    [
        LINES,
        "2007_000032 aeroplane person\n2007_000039: tvmonitor\ncat",
        "2007_000032, aeroplane, person\n2007_000039,19\ncat,background",
    ],
)
def test_lines_name_classes_or_count_the_foreground_from_0(tmp_path, lines):
    (path := tmp_path / "list.txt").write_text(lines)
    assert read(path)[0] == EXPECTED


@pytest.mark.parametrize("kind", ["names", "numbers"])
def test_a_dictionary_of_vectors_has_names_or_their_numbers_as_keys(tmp_path, kind):
    """IRN's list has 2007000032 for 2007_000032."""
    names = {"2007_000032": vector(0, 14), "2007_000039": vector(19), "cat": vector()}
    if kind == "numbers":
        names = {int(k.replace("_", "")) if k[0] == "2" else k: v for k, v in names.items()}
    found, about = read(saved(tmp_path, {**names, "2011_000001": vector(3)}))
    assert found == EXPECTED
    assert (
        "has 4 labels of 4 classes for 4 images; 1 image of these is not looked at here" in about[0]
    )
    assert about[1:] == ["1 image without a label may hold nothing but background"]


def test_images_of_coco_are_found_by_their_name_and_their_number(tmp_path):
    """CLIP-ES coco14/train.txt: bowl, orange, broccoli, which are the classes 46, 50 and 51."""
    (path := tmp_path / "train.txt").write_text("COCO_train2014_000000000009 45 49 50\n25 3\n")
    classes = ["background", *map(str, range(100, 180))]
    names = [Path(f"COCO_train2014_{number:012}") for number in (9, 25)]
    found, _ = read(path, {name: name.with_suffix(".jpg") for name in names}, classes)
    assert list(found.values()) == [(0, 46, 50, 51), (0, 4)]


def test_cityscapes_ids_are_those_of_its_image_files(tmp_path):
    (path := tmp_path / "list.txt").write_text("aachen_000000_000019 aeroplane")
    name = Path("aachen/aachen_000000_000019_leftImg8bit")
    assert list(read(path, {name: name.with_suffix(".png")})[0].values()) == [(0, 1)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("2007_000032 0", "no entry for 2 of 3 images (2007_000039, sub/cat)"),
        ("2007_000032 20 0", "2007_000032 has the label 20, expected 0…19"),
        ("2007_000032 20 1", "seems to count from 1, for 0 (aeroplane) never occurs: subtract 1"),
        ("2007_000032 -1", "has the label '-1', expected a number in 0…19 or the name of a class"),
        ("2007_000032 zebra", "has the label 'zebra'"),
        (f"2007_000032 {'9' * 5000}", "has the label '999"),
        ("2007_000032 dog\n2007_000032 cat", "2007_000032"),
        ("2007_000032 0\nx/2007_000032 1", "are one image, 2007_000032"),
        ("", "has no entry"),
    ],
)
def test_lines_that_cannot_be_meant_are_refused(tmp_path, lines, words):
    (path := tmp_path / "list.txt").write_text(lines)
    with pytest.raises(DataError) as error:
        read(path)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": np.ones(21)}, "a has 21 numbers, expected 20 numbers, .* count the background too"),
        ({"a": np.ones(80)}, "a has 80 numbers, expected 20 numbers"),
        ({"a": vector() + 0.5}, "expected 0 and 1 alone"),
        ({"a": 3}, r"a has an array \(\), expected 20 numbers"),
        ({}, "has no entry"),
        (np.ones((3, 20)), "holds an array, expected a dictionary"),
        ({2007000032: vector(), "2007_000032": vector()}, "may be any of 2007_000032"),
    ],
)
def test_dictionaries_that_cannot_be_meant_are_refused(tmp_path, content, words):
    with pytest.raises(DataError, match=words):
        read(saved(tmp_path, content))


def test_a_malicious_file_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    with pytest.raises(DataError, match=r"cannot be read as a \.npy file"):
        read(saved(tmp_path, {"a": Evil()}))
    assert not (tmp_path / "run").exists()


def test_a_list_without_its_first_label_may_count_from_1_and_a_first_class_may_be_none(tmp_path):
    (path := tmp_path / "list.txt").write_text("2007_000032 1 2\n2007_000039 15\ncat 3")
    assert "if its numbers count from 1, subtract 1" in read(path)[1][-1]
    about = read(path, classes=["road", *CLASSES[1:]])[1]
    assert "WARNING: class 0, road, is taken for the background: it may be anywhere" in about


@pytest.mark.parametrize(("listed", "share"), [((0, 1), "0.0%"), ((0, 2), "100.0%")])
def test_labels_that_rule_out_most_of_what_the_network_sees_are_told(
    tmp_path, monkeypatch, listed, share
):
    """Of 20 images some are looked at; a broken one is told when its turn comes."""
    for number in range(20):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    (tmp_path / "0.png").write_bytes(b"")
    seen = []

    def ones(image):
        seen.append(image)
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[0] = 1
        return labels

    monkeypatch.setattr(image_labels, "Segmenter", lambda *_: ones)
    jobs = [
        Job(tmp_path / f"{n}.png", tmp_path / "m", tmp_path / "o", present=listed)
        for n in range(20)
    ]
    sentence = agreement(SimpleNamespace(net=None, inference=None), jobs)
    assert len(seen) == 6
    assert f"sees in 6 images, labels rule out {share}" in sentence
    assert sentence.startswith("WARNING: do the labels count otherwise") == (share == "100.0%")
