import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deeplab_lit.ablate.gallery import gallery


@pytest.fixture
def rows(make_row):
    return [make_row(label, [0.5]) for label in ("one", "two", "three", "four")]


def test_pictures_are_pixel_for_pixel_those_of_the_samples(rows, shown):
    sources = re.findall(r'src="data:image/png;base64,([^"]*)"', gallery(rows, shown))
    files = [io.BytesIO(base64.b64decode(source)) for source in sources]
    image, truth, *masks = (Image.open(file).convert("RGB") for file in files)
    np.testing.assert_array_equal(image, shown.samples[0][1])
    expected = np.zeros((6, 8, 3))
    expected[2, 3], expected[2, 4] = (230, 60, 60), (224, 224, 192)  # disc, void
    np.testing.assert_array_equal(truth, expected)
    assert [mask.getcolors() for mask in masks] == [
        [(48, (230, 60, 60) if disc else (0, 0, 0))] for disc in (False, True, True, False)
    ]


def test_every_picture_says_what_it_shows(rows, shown):
    rows[1] = replace(rows[1], option="rates", label="<2>")
    settings = ["one", "rates &lt;2&gt;", "three", "four"]
    expected = ["image img1", "truth, image img1", *(f"{x}, image img1" for x in settings)]
    assert re.findall(r'alt="([^"]*)"', gallery(rows, shown)) == expected


def test_void_is_in_the_legend_where_a_mask_shows_some(rows, shown):
    def legend():
        return re.findall(r"rgb\(([^)]*)\)\"></span> (\w+)", gallery(rows, shown))

    classes = [("0, 0, 0", "background"), ("230, 60, 60", "disc")]
    assert legend() == [*classes, ("224, 224, 192", "void")]
    shown.samples[0][2][:] = 0
    assert legend() == classes
