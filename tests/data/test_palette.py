import pytest

from deeplab_lit.data.palette import voc_color


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
