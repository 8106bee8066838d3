"""The pictures of the pages are there, small, and made by a command that is named."""

import re
from pathlib import Path

import pytest
from PIL import Image

from notebooks.pictures.make import COLORS, DRAWN, OUTLINES, rough_mask

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks/pictures"
PICTURES = [path for path in FOLDER.iterdir() if path.suffix in {".png", ".jpg"}]
PAGES = [
    ROOT / "README.md",
    *(page for part in ("configs", "deeplab_lit") for page in (ROOT / part).rglob("*.md")),
    *(ROOT / "notebooks").glob("*.ipynb"),
]
SHOWN = {
    (page.parent / link).resolve()
    for page in PAGES
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text("utf-8"))
    if "://" not in link
}
SIZES = {"astronaut": (512, 512), "coffee": (600, 400)}  # of scikit-image's photographs


def test_every_picture_of_a_page_is_there():
    assert SHOWN
    assert not [path for path in SHOWN if not path.is_file()]


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_shown_or_made_by_its_command_and_small(path):
    assert path in SHOWN or path.stem in DRAWN
    assert path.stat().st_size < 400_000


def test_what_the_command_draws_is_committed():
    assert {path.stem for path in PICTURES} >= DRAWN.keys()


@pytest.mark.parametrize("photo", OUTLINES)
def test_outlines_lie_in_their_photograph(photo):
    wide, high = SIZES[photo]
    mask = rough_mask(OUTLINES[photo], SIZES[photo])
    assert mask.shape == (high, wide)
    names = list(COLORS)
    assert {names[i] for i in set(mask.flat)} == {"background", *OUTLINES[photo]}
    for corners in OUTLINES[photo].values():
        assert all(0 <= x < wide and 0 <= y < high for x, y in corners)


def test_first_is_wide_enough_for_a_page():
    with Image.open(FOLDER / "first.jpg") as picture:
        assert picture.width == 1600
