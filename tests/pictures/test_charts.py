import numpy as np
import pytest
import torch
from crf_inputs import random_image
from PIL import Image

from deeplab_lit.crf import CRFError, DenseCRF
from deeplab_lit.pictures import charts
from deeplab_lit.pictures.charts import (
    band_curves,
    class_bars,
    confusion_matrix,
    heat_maps,
    rough_probabilities,
    small_multiples,
)
from deeplab_lit.pictures.masks import comparison, short

pytestmark = pytest.mark.usefixtures("full_charts")
NAMES = ["sky", "tree", "a rather long name"]
DEMO_CLASSES = {"sky": (10, 20, 200), "tree": (0, 150, 30)}


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


def halves(height=64, width=96):
    """Class 2 on the right, class 0 on the left."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 2
    return mask


@pytest.mark.parametrize("size", [(64, 96), (50, 71), (5, 3)])
def test_rough_probabilities_are_at_the_masks_size(size):
    scores = rough_probabilities(halves(*size), 3)
    assert scores.shape == (3, *size)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(0), 1, rtol=1e-5)
    assert scores.min() > 0


def test_rough_probabilities_are_sure_inside_and_unsure_along_the_edge():
    """By hand: cells of 8 pixels, blurred over three of them, so from 1 to 0 within 12 pixels."""
    scores = rough_probabilities(halves(), 3, cell=8, certainty=0.7)
    inside, edge = scores[:, 30, 30], scores[:, 30, 47:49].mean(1)
    np.testing.assert_allclose(inside, [0.8, 0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(edge, [0.45, 0.1, 0.45], rtol=1e-5)
    np.testing.assert_allclose(scores[0, 30, 43:45].mean(), 0.1 + 0.7 * 2 / 3, rtol=1e-5)


def test_rough_probabilities_move_no_edge_but_round_corners_off():
    mask = np.zeros((135, 170), np.uint8)
    mask[32:96, 48:128] = 1
    found = rough_probabilities(mask, 2).argmax(0)
    np.testing.assert_array_equal(found[64], mask[64])
    np.testing.assert_array_equal(found[:, 80], mask[:, 80])
    assert found[32, 48] == 0


def test_of_what_is_not_drawn_all_classes_are_equally_likely():
    scores = rough_probabilities(np.full((20, 20), 255, np.uint8), 4)
    np.testing.assert_allclose(scores, 0.25)


def test_the_crf_takes_rough_probabilities():
    image = random_image((64, 96))
    scores = rough_probabilities(halves(), 3)
    assert DenseCRF(backend="torch")(image, scores).shape == scores.shape


def test_a_class_too_many_in_a_drawn_mask_is_named():
    with pytest.raises(CRFError, match=r"0…1 and 255, this one also \[2\]"):
        rough_probabilities(halves(), 2)


@pytest.fixture
def image():
    """Bright on the left, dark on the right of column 25."""
    image = np.full((48, 60, 3), 220, np.uint8)
    image[:, 25:] = 30
    return image


@pytest.fixture
def probabilities():
    """The network's edge lies at column 32."""
    mask = np.zeros((48, 60), np.uint8)
    mask[:, 32:] = 1
    return rough_probabilities(mask, 2)


def test_each_value_has_its_picture_beside_image_and_network(image, probabilities):
    made = small_multiples(image, probabilities, DEMO_CLASSES, "bi_w", (0, 4.0), width=62)
    before = probabilities.argmax(0).astype(np.uint8)
    after = [DenseCRF(bi_w=w)(image, probabilities).argmax(0).astype(np.uint8) for w in (0, 4)]
    titles = ("image", "before", "bi_w 0", "bi_w 4.0")
    expected = comparison([(image, before, *after)], DEMO_CLASSES, titles, 62)
    np.testing.assert_array_equal(made, expected)
    assert (after[1][24] == (np.arange(60) >= 25)).all()  # the edge is the image's
    assert (after[0][24] == before[24]).all()


def test_a_value_that_cannot_be_is_told(image, probabilities):
    with pytest.raises(CRFError, match="bi_xy_std"):
        small_multiples(image, probabilities, DEMO_CLASSES, "bi_xy_std", (-1,))
