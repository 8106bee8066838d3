import numpy as np
import pytest
from PIL import ImageDraw

from deeplab_lit.data import ADE20K
from deeplab_lit.data.check import Summary
from deeplab_lit.prepare.class_plot import LENGTH, class_plot

RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)
CLASSES = {"sky": RED, "road": GREEN, "car": BLUE}


def summary(title, pixels):
    return Summary(title, np.array(pixels), np.array(pixels) > 0)


def longest_runs(picture, color):
    """Lengths of the bars of a color, in pixels, from top to bottom: one for each bar."""
    rows = (np.asarray(picture) == color).all(axis=2).sum(axis=1)
    starts = np.flatnonzero(np.diff(np.concatenate([[0], rows])) > 0)
    return [int(rows[start]) for start in starts]


def test_bars_are_as_long_as_the_logarithm_of_the_share():
    plot = class_plot([summary("X train", [9_000, 999, 1])], CLASSES)
    for color, share in ((RED, 0.9), (GREEN, 0.0999), (BLUE, 1e-4)):
        (length,) = longest_runs(plot, color)
        assert length == pytest.approx(LENGTH * (1 + np.log10(share) / 5), abs=3)


def test_each_split_has_its_bar_and_an_absent_class_has_none():
    plot = class_plot([summary("X train", [1, 1, 0]), summary("X val", [0, 1, 1])], CLASSES)
    assert [len(longest_runs(plot, color)) for color in (RED, GREEN, BLUE)] == [1, 2, 1]


def test_many_classes_stand_in_columns():
    names = ADE20K.classes
    plot = class_plot([summary("ADE20K train", np.ones(150, int))], names)
    assert plot.height < 1200
    pixels = {tuple(pixel) for row in np.asarray(plot) for pixel in row.tolist()}
    assert set(names.values()) <= pixels


def test_a_class_too_rare_for_a_bar_is_not_called_nothing(monkeypatch):
    texts = []
    draw = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda *args, **kw: texts.append(args[2]) or draw(*args, **kw)
    )
    class_plot([summary("X train", [10_000_000, 1, 0])], CLASSES)
    assert "below 0.001%" in texts
    assert "none" in texts
    assert "0.000%" not in texts
