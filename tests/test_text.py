import pytest

from deeplab_lit.text import first_few, plural


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (2000, "2,000 images")]
)
def test_only_one_is_one(number, said):
    assert plural(number, "image") == said


def test_of_many_names_three_are_said():
    assert first_few(["sky", "road", "car"]) == "sky, road, car"
    assert first_few(["sky", "road", "car", "pole"]) == "sky, road, car, …"
    assert first_few(list("ab")) == "a, b"


def test_the_plural_of_what_ends_in_s():
    assert [plural(n, "class") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
