import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.pictures import charts
from deeplab_lit.pictures.charts import band_curves, class_bars, confusion_matrix, heat_maps
from deeplab_lit.pictures.masks import short

NAMES = ["sky", "tree", "a rather long name"]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def share(path, color):
    return (np.abs(pixels(path).astype(int) - color) < 6).all(-1).mean()


def test_a_confusion_matrix_shows_shares_of_the_true_class(tmp_path):
    """Rows of 1000 and of 2 pixels look the same; a class without pixels is gray."""
    right = torch.tensor([[1000, 0, 0], [0, 2, 0], [0, 0, 0]])
    confusion_matrix(right, NAMES, tmp_path / "right.png")
    wrong = torch.tensor([[0, 1000, 0], [2, 0, 0], [0, 0, 0]])
    confusion_matrix(wrong, NAMES, tmp_path / "wrong.png")
    darkest = (8, 48, 107)  # of Matplotlib's Blues, at 100 %
    assert share(tmp_path / "right.png", darkest) == pytest.approx(
        share(tmp_path / "wrong.png", darkest), rel=0.05
    )
    gray = share(tmp_path / "right.png", (211, 211, 211))
    assert share(tmp_path / "right.png", darkest) == pytest.approx(2 / 3 * gray, rel=0.1)
    assert (pixels(tmp_path / "right.png") != pixels(tmp_path / "wrong.png")).any()


@pytest.mark.parametrize(("classes", "dpi"), [(1, 120), (19, 120), (150, 40)])
def test_charts_of_any_number_of_classes(tmp_path, monkeypatch, classes, dpi):
    names = [f"class {i}" for i in range(classes)]
    with monkeypatch.context() as patch:
        patch.setattr(charts, "DPI", dpi)  # pixels that prove nothing are slow
        confusion_matrix(torch.eye(classes, dtype=torch.int64), names, tmp_path / "confusion.png")
    iou = np.linspace(0, 1, classes)
    iou[0] = np.nan
    class_bars({"network": iou, "after the CRF": iou}, names, tmp_path / "classes.png")
    sizes = [Image.open(tmp_path / f"{n}.png").size for n in ("confusion", "classes")]
    assert min(min(size) for size in sizes) > 300
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "classes.png"}


def test_bars_are_as_high_as_their_values(tmp_path):
    class_bars({"network": [0.25, 0.25, 0.25]}, NAMES, tmp_path / "low.png")
    class_bars({"network": [0.75, 0.75, 0.75]}, NAMES, tmp_path / "high.png")
    blue = (31, 119, 180)  # Matplotlib's first color; the grid shines through at some rows
    ratio = share(tmp_path / "high.png", blue) / share(tmp_path / "low.png", blue)
    assert ratio == pytest.approx(3, rel=0.1)


def test_an_absent_class_is_told_from_one_that_was_never_right(tmp_path):
    class_bars({"network": [0.5, 0, 0.5]}, NAMES, tmp_path / "wrong.png")
    class_bars({"network": [0.5, np.nan, 0.5]}, NAMES, tmp_path / "absent.png")
    wrong, absent = (pixels(tmp_path / f"{name}.png") for name in ("wrong", "absent"))
    height, width = wrong.shape[:2]
    middle = np.s_[height // 3 :, int(0.45 * width) : int(0.55 * width)]  # of the second class
    assert (wrong[middle] != absent[middle]).any()


def test_the_bands_say_around_what_they_are(tmp_path):
    for around in ("void", "classes"):
        band_curves({"a": [0.5, 0.75]}, [1, 2], around, tmp_path / f"{around}.png")
    assert (pixels(tmp_path / "void.png") != pixels(tmp_path / "classes.png")).any()


def test_curves_may_have_gaps(tmp_path):
    curves = {"a": [float("nan"), 0.5, 0.75], "b": [float("nan")] * 3}
    band_curves(curves, [1, 2, 3], "void", tmp_path / "band.png")
    assert share(tmp_path / "band.png", (31, 119, 180)) > 0


def test_heat_maps_show_every_score_and_mark_the_best(tmp_path):
    scores = {
        (w, x, c): w / 10 + x / 1000 + c for w in (3, 4) for x in (30, 40) for c in (0.1, 0.2)
    }
    heat_maps(scores, ("w1", "sa", "sb"), tmp_path / "maps.png")
    found = pixels(tmp_path / "maps.png")
    red = (found == (255, 0, 0)).all(-1)
    assert red.any()
    assert not red[:, : found.shape[1] // 2].any()  # the best is at the larger third parameter


@pytest.mark.parametrize("score", [0.5, 0.7131, 0.0])
def test_a_heat_map_of_equal_scores(tmp_path, score):
    scores = dict.fromkeys([(3, 30, 3), (4, 30, 3)], score)
    heat_maps(scores, ("w1", "sa", "sb"), tmp_path / "one.png")
    assert len(np.unique(pixels(tmp_path / "one.png"))) > 2


ODD = ["$a$", "$x^$_{", "_hidden", "100% {} <b>&", "a\nb\x07", "n" * 200, "道路 🚗"]


@pytest.mark.filterwarnings("error")
def test_any_name_of_a_class_is_drawn(tmp_path):
    """No formulas, no names left out, no room taken from the chart, and nothing said."""
    confusion_matrix(torch.eye(len(ODD), dtype=torch.int64), ODD, tmp_path / "confusion.png")
    class_bars({"$a$": [0.5] * len(ODD)}, ODD, tmp_path / "classes.png")
    band_curves({name: [0.5, 0.75] for name in ODD}, [1, 2], "void", tmp_path / "band.png")
    assert share(tmp_path / "confusion.png", (8, 48, 107)) > 0.02  # the diagonal
    assert share(tmp_path / "classes.png", (31, 119, 180)) > 0.02


@pytest.mark.filterwarnings("ignore:Glyph")
def test_every_curve_is_in_the_legend_and_none_below_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(charts, "_save", lambda figure, path: drawn.append(figure))
    band_curves({name: [0.0, 1.0] for name in ODD}, [1, 2], "void", tmp_path / "band.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [short(name, 80) for name in ODD]
    (axes,) = figure.axes
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    assert axes.get_window_extent().height > 200


def test_a_short_name_keeps_both_ends():
    assert short("abc") == "abc"
    assert short("a\n b\tc\x00") == "a b c"
    assert short("abcdefghij", 6) == "abc…ij"
    assert [short("abc", n) for n in (1, 2, 3)] == ["…", "a…", "abc"]
