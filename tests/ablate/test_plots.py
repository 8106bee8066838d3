from dataclasses import replace

import numpy as np
import pytest
import torch

from deeplab_lit.ablate.plots import curves_plot, fields_plot, settings_plot, taps_plot
from deeplab_lit.pictures.masks import short
from deeplab_lit.pictures.web_page import draw


def points(axes, marker):
    """Of each line with this marker: ([x], [y])."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    found = [
        (line.get_xdata().tolist(), list(line.get_ydata()))
        for line in lines
        if len(line.get_xdata())
    ]
    return [(pytest.approx(x), pytest.approx(y)) for x, y in found]


def test_a_dot_a_seed_and_a_bar_at_the_mean(make_row):
    axes = settings_plot([make_row("a", [0.50, 0.52]), make_row("b", [0.60])]).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"]
    assert points(axes, "o") == [([50, 52], [0, 0]), ([60], [1])]
    assert points(axes, "|") == [([51], [0]), ([60], [1])]
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first row is at the top
    assert axes.get_legend() is None
    assert not axes.figure.legends


def test_scores_after_the_crf_are_another_color(make_row):
    axes = settings_plot([make_row("a", [0.50], crf=[0.55]), make_row("b", [0.60])]).axes[0]
    assert points(axes, "o") == [([50], [0]), ([60], [1]), ([55], [0])]
    dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert dots[0].get_color() == dots[1].get_color() != dots[2].get_color()
    (legend,) = axes.figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"network", "after the CRF"}


@pytest.mark.parametrize("crf", [[0.40, 0.99], [0.99, 0.01]])
def test_a_legend_covers_no_point(make_row, crf):
    """Whatever corner the points are in."""
    rows = [make_row("a", [0.01, 0.99], crf=crf), make_row("b", [0.99, 0.01], crf=crf)]
    for plot in (settings_plot, curves_plot):
        figure = plot(rows)
        figure.draw_without_rendering()
        axes = figure.axes[0]
        legends = [*figure.legends, *filter(None, [axes.get_legend()])]
        (legend,) = legends
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())
        assert inside(figure, legend)


@pytest.mark.parametrize("name", ["_base", "$a$b$", "%s {} <b> & 1_000", "a\nb\x00\tc", "n" * 200])
@pytest.mark.filterwarnings("error")
def test_any_name_of_a_setting_is_drawn_and_left_room_for(make_row, name):
    rows = [replace(make_row(name, [0.5]), option=name), make_row("other", [0.6], setting=1)]
    words = short(name, 80)
    figure = curves_plot(rows)
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [words, "other"]
    assert inside(figure, legend)
    assert figure.axes[0].get_window_extent().width > 400
    figure = settings_plot(rows)
    assert figure.axes[0].get_yticklabels()[0].get_text() == words
    assert inside(figure, figure.axes[0].get_yticklabels()[0])
    assert figure.axes[0].get_window_extent().width > 350
    assert draw(fields_plot({f"{name}\nrate 1": torch.rand(5, 5)}), "png")


def test_curves_are_the_mean_and_the_range_of_the_seeds_where_all_have_one(make_row):
    seeds = [[(10, 0.2), (20, 0.4), (30, 0.9)], [(10, 0.3), (20, 0.6)]]
    axes = curves_plot([make_row("a", [0.4, 0.6], curves=seeds)]).axes[0]
    assert points(axes, ".") == [([10, 20], [25, 50])]
    band = axes.collections[0].get_paths()[0].vertices
    assert {(x, round(y)) for x, y in band} == {(10, 20), (10, 30), (20, 40), (20, 60)}


def test_a_score_that_is_not_known_is_not_drawn(make_row):
    rows = [make_row("a", [None, 0.50]), make_row("b", [0.60, 0.62])]
    figure = settings_plot(rows)
    shown = [x for x, _ in points(figure.axes[0], "o")]
    assert shown[1] == [60, 62]
    assert draw(figure, "svg")
    low, high = figure.axes[0].get_xlim()
    assert 45 < low < 50 < 62 < high < 70


def inside(figure, artist):
    """Whether all of it is on the figure."""
    figure.draw_without_rendering()
    box, page = artist.get_window_extent(), figure.bbox
    return page.x0 <= box.x0 < box.x1 <= page.x1 and page.y0 <= box.y0 < box.y1 <= page.y1


def test_of_many_settings_each_has_its_own_line_and_all_words_can_be_read(make_row):
    rows = [
        make_row(f"head aspp_concat; atrous_rates 6, 12, {i}", [0.4], setting=i) for i in range(21)
    ]
    figure = curves_plot(rows)
    legend = figure.axes[0].get_legend()
    assert len(legend.get_texts()) == 21
    assert inside(figure, legend)
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 21
    assert figure.axes[0].get_window_extent().width > 400  # of 750 pixels
    figure = settings_plot(rows)
    for words in (figure.axes[0].xaxis.label, *figure.axes[0].get_yticklabels()):
        assert inside(figure, words)


def test_the_option_that_varies_is_named(make_row):
    rows = [replace(make_row("6", [0.5]), option="rates"), make_row("12", [0.6], setting=1)]
    assert settings_plot(rows).axes[0].get_ylabel() == "rates"
    assert curves_plot(rows).axes[0].get_legend().get_title().get_text() == "rates"
    assert settings_plot(rows[1:]).axes[0].get_ylabel() == ""


@pytest.mark.parametrize("plot", [settings_plot, curves_plot])
def test_a_dollar_in_a_name_is_a_dollar(make_row, plot):
    """Between two, matplotlib would read a formula, and refuse a wrong one."""
    figure = plot([make_row("$x^$ & _y", [0.5]), make_row("b", [0.6], setting=1)])
    assert draw(figure, "png")
    axes = figure.axes[0]
    words = axes.get_legend().get_texts() if plot is curves_plot else axes.get_yticklabels()
    assert words[0].get_text() == "$x^$ & _y"
    assert not words[0].get_parse_math()


def test_settings_that_share_their_trainings_have_one_curve(make_row):
    one, other = make_row("a", [0.4], setting=0), make_row("b", [0.5], setting=1)
    shared = [make_row(label, [0.4], setting=0) for label in ("a", "c")]
    for rows, names in (
        (shared, ["all settings"]),
        ([*shared, other], ["a / c", "b"]),
        ([one, other], ["a", "b"]),
    ):
        axes = curves_plot(rows).axes[0]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == names
        assert len(points(axes, ".")) == len(names)


def test_taps_are_those_that_a_loop_counts():
    height, width = 4, 6
    axes = taps_plot(height, width, [2, 5]).axes[0]
    mean = next(line for line in axes.lines if line.get_label() == "real taps, mean")
    assert list(mean.get_xdata()) == [1, 2, 3, 4, 5, 6]
    for rate, value in zip(mean.get_xdata(), mean.get_ydata(), strict=True):
        real = sum(
            0 <= y + i * rate < height and 0 <= x + j * rate < width
            for y in range(height)
            for x in range(width)
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
        )
        assert value == pytest.approx(100 * real / (9 * height * width))
    assert mean.get_ydata()[-1] == pytest.approx(100 / 9)  # a 1×1 is left
    marked = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert marked == [2, 5]
    whole = axes.collections[0].get_paths()[0].vertices  # cells whose nine taps are real
    assert max(y for x, y in whole if x == 1) == pytest.approx(100 * (2 * 4) / (4 * 6))


@pytest.mark.parametrize("cells", [4, 21])
def test_a_rate_is_a_whole_number(cells):
    ticks = taps_plot(cells, cells).axes[0].get_xticks()
    assert len(ticks) > 2
    assert (ticks == ticks.round()).all()


def test_fields_share_one_logarithmic_scale():
    fields = {"near": torch.tensor([[1.0, 0.1]]), "far": torch.tensor([[0.01, 0.0]])}
    near, far = fields_plot(fields).axes
    assert [near.get_title(), far.get_title()] == ["near", "far"]
    np.testing.assert_allclose(near.images[0].get_array(), [[0, -1]], atol=1e-6)
    np.testing.assert_allclose(far.images[0].get_array(), [[-2, -4]], atol=1e-6)
    assert near.images[0].get_clim() == far.images[0].get_clim() == (-4, 0)


def test_many_fields_stand_in_rows_under_their_names():
    """Names of two lines, of which a dollar is no formula and a long one is broken."""
    long = "atrous_rates 6, 12, 18, 24, lr_policy poly"
    fields = {f"$x^$ {i}\nrate {i}": torch.rand(5, 5) for i in range(6)}
    figure = fields_plot(fields | {f"{long}\nrate 6": torch.rand(5, 5)}, columns=3)
    draw(figure, "svg")
    places = [axes.get_subplotspec() for axes in figure.axes]
    assert [(p.rowspan.start, p.colspan.start) for p in places] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)
    ]  # fmt: skip
    assert figure.axes[4].get_title() == "$x^$ 4\nrate 4"
    first, *others = figure.axes[6].get_title().split("\n")
    assert " ".join([first, *others]) == f"{long} rate 6"
    assert others[-1] == "rate 6"
    width = figure.get_size_inches()[0] / 3 * figure.dpi
    for axes in figure.axes:
        assert axes.title.get_window_extent().width <= width
