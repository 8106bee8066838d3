import pytest

from deeplab_lit.data.palette import voc_colour


@pytest.mark.parametrize(
    ("index", "colour"),
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
def test_colours_are_those_of_the_devkit(index, colour):
    assert voc_colour(index) == colour


def test_every_index_has_its_own_colour():
    assert len({voc_colour(i) for i in range(256)}) == 256
