import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from deeplab_lit.ablate.pictures import data_of, look
from deeplab_lit.ablate.plots import fields_plot, picture, settings_plot, taps_plot
from deeplab_lit.ablate.report import short, write_report
from deeplab_lit.ablate.results import read_results
from deeplab_lit.ablate.table import rows
from deeplab_lit.data import Shapes


@pytest.fixture
def done(trials, make_run):
    for trial in trials:
        miou = 0.5 + 0.2 * trial.setting + 0.01 * trial.seed
        hits = np.full((4, 7), 50 + 20 * trial.setting)
        make_run(trial, miou, crf=miou + 0.05, hits=hits)
    return trials


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_is_one_file_that_needs_nothing_else(sweep, done, tmp_path, capsys):
    folder = tmp_path / "runs/rates"
    write_report(sweep, done, folder)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names == {"table.md", "table.csv", "plot.png", "report.html"}
    page = Page((folder / "report.html").read_text())
    assert page.open == []
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    # 4 images, each with truth and 2 predictions; 4 plots
    assert len(page.sources) == 4 * 4 + 4
    words = " ".join(page.words)
    assert "Which rate?" in words
    assert "“2, 4” is better" in words
    assert "rate 4" in words
    said = capsys.readouterr().out
    assert (folder / "table.md").read_text() in said
    assert str(folder / "report.html") in said


def test_names_from_files_are_text_and_no_markup(sweep_file, done, tmp_path):
    from deeplab_lit.ablate.sweep import read_sweep

    sweep = read_sweep(sweep_file(description="<script>alert(1)</script> & more"))
    write_report(sweep, done, tmp_path / "runs/rates")
    text = (tmp_path / "runs/rates/report.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text


def test_part_of_an_ablation_can_be_reported(sweep, trials, make_run, tmp_path, capsys):
    make_run(trials[0], 0.5)
    write_report(sweep, trials, tmp_path / "runs/rates")
    assert "3 of 4 trials are not done" in capsys.readouterr().out
    text = (tmp_path / "runs/rates/report.html").read_text()
    assert "3 trials are not done yet" in text


def test_nothing_done_is_said(sweep, trials, tmp_path, capsys):
    write_report(sweep, trials, tmp_path)
    assert "Nothing to report yet" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))


def test_where_the_data_is_gone_the_report_says_so(sweep, done, tmp_path):
    for trial in done:
        config = trial.fit.folder / "config.yaml"
        config.write_text("data: {class_path: deeplab_lit.data.VOC, init_args: {root: /nowhere}}")
    write_report(sweep, done, tmp_path / "runs/rates")
    assert "No pictures: " in (tmp_path / "runs/rates/report.html").read_text()


def test_pictures_are_of_the_same_images_for_every_setting(done):
    made = rows(read_results(done), ["a", "b"], after_crf=False)
    data = data_of(made[0])
    assert isinstance(data, Shapes)
    shown = look(made, num_images=2)
    split = data.split("val")
    assert [sample[0] for sample in shown.samples] == [split.ids[0], split.ids[2]]
    for _, image, truth, masks in shown.samples:
        assert image.shape == (161, 161, 3)
        assert [mask.shape for mask in masks] == [truth.shape] * 2
    np.testing.assert_array_equal(shown.samples[1][1], split.read(2)[0])
    assert [[b.name for b in branches] for branches in shown.branches] == [
        ["rate 1"],
        ["rate 2", "rate 4"],
    ]
    assert shown.grid == (21, 21)
    assert shown.rates == [1, 2, 4]


def test_settings_that_differ_after_the_crf_only_are_compared_there(sweep_file, make_run, tmp_path):
    from deeplab_lit.ablate.plan import plan
    from deeplab_lit.ablate.sweep import read_sweep

    sweep = read_sweep(sweep_file(parameters={"crf.bi_w": {"values": [3, 4]}}))
    folder = tmp_path / "runs/rates"
    trials = plan(sweep, folder)
    for trial, crf in zip(trials, (0.6, 0.7), strict=True):
        make_run(trial, 0.5, crf=crf)
    write_report(sweep, trials, folder)
    assert "+10.00" in (folder / "table.md").read_text()


def test_labels_are_short_where_one_option_varies():
    assert short(["rates 1", "rates 2, 4"]) == ["1", "2, 4"]
    assert short(["head x; lr 1", "head y; lr 1"]) == ["head x; lr 1", "head y; lr 1"]


def test_plots_show_what_they_are_given(done):
    made = rows(read_results(done), ["a", "b"], after_crf=False)
    axes = settings_plot(made).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"]
    dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert sorted(dots[0].get_xdata()) == pytest.approx([50, 51])
    taps = taps_plot(21, 21, [6]).axes[0]
    mean = next(line for line in taps.lines if line.get_label() == "real taps, mean")
    assert mean.get_ydata()[-1] == pytest.approx(100 / 9)  # rate 21: a 1×1 is left
    png = picture(fields_plot({"x": look(made, 1).branches[0][0].field}), "png")
    assert png.startswith(b"\x89PNG")
    assert re.search(rb"<svg", picture(taps_plot(5, 5), "svg"))
    assert Path("plot.png").exists() is False  # nothing is written on the way
