import pytest

from deeplab_lit.data.words import counted


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (2000, "2,000 images")]
)
def test_only_one_is_one(number, said):
    assert counted(number, "image") == said
