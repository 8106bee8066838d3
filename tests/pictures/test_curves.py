import math

import pytest

from deeplab_lit.pictures.curves import curves_of, curves_plot

METRICS = {
    "train/loss": [(10, 2.0), (20, math.nan), (30, 1.0)],
    "val/miou": [(15, 0.25), (30, 0.5)],
    "val_crf/miou": [(15, 0.3), (30, 0.45)],
    "lr/backbone": [(10, 1e-3), (20, 5e-4), (30, 0.0)],
    "lr/head.weight": [(10, 1e-2), (20, 5e-3), (30, 0.0)],
    "lr/head.bias": [(10, 1e-2), (20, 5e-3), (30, 0.0)],
    "val/iou/disc": [(15, 0.1)],
}


def test_a_training_has_three_charts_and_equal_rates_one_line():
    loss, scores, rates = curves_of(METRICS)
    assert loss.lines == {"loss": [(10, 2.0), (30, 1.0)]}  # what is no number is no point
    assert scores.lines == {
        "network": [(15, 25.0), (30, 50.0)],
        "after the CRF": [(15, 30.0), (30, 45.0)],
    }
    assert rates.lines.keys() == {"backbone", "head.weight, head.bias"}


def test_what_was_not_logged_has_no_chart():
    assert curves_of({"train/loss": [(1, math.nan)], "epoch": [(1, 0)]}) == []
    assert [chart.title for chart in curves_of({"lr/all": [(1, 0.1)]})] == ["learning rate"]


def test_lines_are_the_points_and_the_scored_step_is_marked():
    _, scores, rates = curves_of(METRICS)
    axes = curves_plot(scores, 15).axes[0]
    network, refined, mark = axes.lines
    assert network.get_xydata().tolist() == [[15, 25], [30, 50]]
    assert refined.get_xydata().tolist() == [[15, 30], [30, 45]]
    assert set(mark.get_xdata()) == {15}
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["network", "after the CRF", "step 15, scored"]
    assert curves_plot(rates, None).axes[0].get_yscale() == "linear"  # a rate of 0 has no logarithm
    falling = rates._replace(lines={"all": [(1, 0.1), (2, 0.01)]})
    assert curves_plot(falling, None).axes[0].get_yscale() == "log"
    assert len(curves_plot(falling, None).axes[0].lines) == 1


def test_a_chart_can_be_read_aloud():
    loss, scores, _ = curves_of(METRICS)
    assert loss.in_words() == "training loss: loss 2 at step 10, 1 at step 30"
    assert scores.in_words().endswith("after the CRF 30 at step 15, 45 at step 30")


@pytest.mark.parametrize("name", ["$x_1$", "_hidden", "a" * 500])
def test_names_of_groups_are_drawn_as_they_are(name):
    (rates,) = curves_of({f"lr/{name}": [(1, 0.1), (2, 0.2)]})
    figure = curves_plot(rates, None)
    figure.canvas.draw()
    (text,) = figure.axes[0].get_legend().get_texts()
    assert text.get_text()[:5] == name[:5]
