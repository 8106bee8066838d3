import pytest

from deeplab_lit.data import VOC, Cityscapes, CocoStuff10k, DataError, class_names
from deeplab_lit.data.classes import means_void, read_class_list, voc_color


def read(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text, "utf-8")
    return read_class_list(tmp_path / "classes.txt")


def test_names_alone_are_numbered_and_comments_are_none(tmp_path):
    lines = read(tmp_path, "\ufeff# mine\nsky\n# the ground\ntraffic light\n\n\n")
    assert [(line.name, line.value) for line in lines] == [("sky", 0), ("traffic light", 1)]


@pytest.mark.parametrize(
    "text",
    [
        "sky 0 0 255\nmy road  128 64 128\n",
        "sky,0,0,255\nmy road,128,64,128\n",
        "sky\t0\t0\t255\nmy road: 128, 64, 128\n",
        "0 0 255\tsky\n128 64 128\t\tmy road\n",
    ],
)
def test_colors_may_stand_before_or_behind_the_names(tmp_path, text):
    lines = read(tmp_path, text)
    assert [line.name for line in lines] == ["sky", "my road"]
    assert [line.color for line in lines] == [(0, 0, 255), (128, 64, 128)]


def test_values_may_have_gaps_and_any_order(tmp_path):
    lines = read(tmp_path, "road = 7\nsky=23\nVoid = 0\nclass 12 = 12\n")
    assert [line.value for line in lines] == [7, 23, 0, 12]
    assert [line.name for line in lines if line.is_void] == ["Void"]
    assert lines[-1].name == "class 12"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n\nb\n", "line 2 is empty"),
        ("a\n#\n \nb\n", "line 3 is empty"),
        ("a\nb 1 2 3\n", r"line 1 \('a'\) has a name alone, but line 2 .* has a color"),
        ("a = 1\nb 1 2 3\n", "line 1 .* a value, but line 2 .* a color"),
        ("a = 1\nb\n", "line 1 .* a value, but line 2 .* a name alone"),
        ("a 1 2 256\nb 1 2 3\n", "line 1 .* above 255"),
        ("a = 300\n", "line 1 .* above 255"),
        ("a 1 2 3\nb 1 2 3\n", r"a and b have the same \(1, 2, 3\)"),
        ("a = 1\nb = 1\n", "a and b have the same 1"),
        ("a = 1\na = 2\n", "different names.*a stands there twice"),
    ],
)
def test_what_would_shift_or_mix_classes_is_refused(tmp_path, text, words):
    with pytest.raises(DataError, match=rf"classes\.txt: .*{words}"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "1 cat\n2 dog\n0 background\n",
        "cat 1\ndog 2\nbackground 0\n",
        "1: cat\n2: dog\n",
        "0 = a\n2 = b\n",
    ],
)
def test_names_with_values_beside_them_are_not_numbered_by_their_lines(tmp_path, text):
    with pytest.raises(DataError, match="write `name = value`"):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["grade 1\ngrade 2\n", "0 sky\n1 road\n", "B 52\nship\n"])
def test_names_may_have_numbers(tmp_path, text):
    assert [line.value for line in read(tmp_path, text)] == [0, 1]


def test_a_name_that_means_void_is_known_however_it_is_written():
    assert all(map(means_void, ["Don't care", "dont_care", "Void", "unlabeled pixels", "IGNORE"]))
    assert not any(map(means_void, ["avoidance", "care", "background"]))


@pytest.mark.parametrize(
    ("index", "color"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (3, (128, 128, 0)),
        (4, (0, 0, 128)),
        (7, (128, 128, 128)),
        (8, (64, 0, 0)),
        (15, (192, 128, 128)),
        (16, (0, 64, 0)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_colors_are_those_of_the_devkit(index, color):
    assert voc_color(index) == color


def test_every_index_has_its_own_color():
    assert len({voc_color(i) for i in range(256)}) == 256


def test_the_number_of_classes_tells_voc_cityscapes_and_coco_stuff():
    assert class_names(21) == VOC.classes
    assert class_names(19) == Cityscapes.classes
    assert class_names(182) == CocoStuff10k.classes
    assert class_names(21, "VOC") == VOC.classes
    assert class_names(19, "cityscapes") == Cityscapes.classes


@pytest.mark.parametrize("number", [1, 60, 183, 256])
def test_other_numbers_get_numbered_names_and_colors_of_their_own(number):
    classes = class_names(number)
    assert list(classes)[-1] == f"class_{number - 1}"
    assert len(set(classes.values())) == len(classes) == number


def test_names_may_come_from_a_file(tmp_path):
    (tmp_path / "classes.txt").write_text("sky\nroad\n\n")
    assert list(class_names(2, str(tmp_path / "classes.txt"))) == ["sky", "road"]


@pytest.mark.parametrize("given", ["voc", "classes.txt"])
def test_another_number_of_names_is_refused(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\nroad\nsky\n")
    with pytest.raises(DataError, match=rf"--data_classes {given} .* the network has 3"):
        class_names(3, given)


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"no such file"):
        class_names(3, "nowhere.txt")
