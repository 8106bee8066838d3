import base64
import csv
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deeplab_lit.ablate import plots
from deeplab_lit.ablate.bootstrap import Difference
from deeplab_lit.ablate.plan import plan
from deeplab_lit.ablate.report import page, short_labels, write_report
from deeplab_lit.ablate.results import best_checkpoint
from deeplab_lit.ablate.sweep import read_sweep
from deeplab_lit.pictures import web_page
from tests.html_page import Page, decoded


@pytest.fixture
def no_drawing(monkeypatch):
    """Plots that are made, but not drawn, which takes most of the time of a page."""
    monkeypatch.setattr(web_page, "draw", lambda figure, kind: b"<svg/>")


def test_the_report_is_four_files_and_the_table_on_the_screen(sweep, done, tmp_path, capsys):
    folder = tmp_path / "runs/rates"
    write_report(sweep, done, folder)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names == {"table.md", "table.csv", "plot.png", "report.html"}
    page = (folder / "report.html").read_text()
    assert "Which rate?" in page
    assert "“2, 4” is better" in page
    # 4 images, each with truth and 2 predictions
    assert page.count("data:image/png") == 4 * 4
    said = capsys.readouterr().out
    assert (folder / "table.md").read_text() in said
    assert str(folder / "report.html") in said


@pytest.mark.usefixtures("no_drawing")
def test_part_of_an_ablation_can_be_reported(sweep, runs, make_run, tmp_path, capsys):
    make_run(runs[0], 0.5)
    write_report(sweep, runs, tmp_path / "runs/rates")
    assert "3 runs are not done yet" in capsys.readouterr().out
    text = (tmp_path / "runs/rates/report.html").read_text()
    assert "3 runs are not done yet" in text


def test_nothing_done_is_said(sweep, runs, tmp_path, capsys):
    write_report(sweep, runs, tmp_path)
    assert capsys.readouterr().err.startswith("Nothing to report yet: no run is done.\n")
    assert not list(tmp_path.glob("*.html"))


def test_runs_of_other_options_are_not_passed_over_in_silence(sweep, done, tmp_path, capsys):
    """Trainings with their validations without the CRF, and now with it asked for."""
    folder = tmp_path / "runs/rates"
    write_report(sweep, plan(sweep, folder, crf=True), folder)
    said = capsys.readouterr().err
    assert "Nothing to report yet" in said
    assert "the same --crf, --seeds and options with a dot" in said
    assert not (folder / "report.html").exists()


@pytest.mark.usefixtures("no_drawing")
def test_a_damaged_checkpoint_takes_the_pictures_alone(sweep, done, tmp_path):
    """Scores, counts and sizes are in files of their own."""
    path = best_checkpoint(done[1])
    path.write_text("PK")
    write_report(sweep, done, tmp_path / "runs/rates")
    text = (tmp_path / "runs/rates/report.html").read_text()
    assert f"No pictures: {path}" in text
    assert "“2, 4” is better" in text


@pytest.mark.usefixtures("no_drawing")
def test_where_the_data_is_gone_the_report_says_so(sweep, done, tmp_path):
    for run in done:
        config = run.validate.folder / "config.yaml"
        config.write_text("{data: {class_path: VOC, init_args: {root: /n}}, eval: {}, crf: {}}")
    write_report(sweep, done, tmp_path / "runs/rates")
    assert "No pictures: " in (tmp_path / "runs/rates/report.html").read_text()


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize(
    ("metric", "expected"), [("val/miou", "+0.00"), ("val_crf/miou", "+10.00")]
)
def test_the_metric_says_whether_settings_are_compared_after_the_crf(
    sweep_file, make_run, tmp_path, metric, expected
):
    parameters = {"crf.bi_w": {"values": [3, 4]}}
    sweep = read_sweep(sweep_file(parameters=parameters, metric={"name": metric}))
    folder = tmp_path / "runs/rates"
    runs = plan(sweep, folder)
    for run, crf in zip(runs, (0.6, 0.7), strict=True):
        make_run(run, 0.5, crf=crf)
    write_report(sweep, runs, folder)
    assert f"| {expected}" in (folder / "table.md").read_text()


def test_labels_are_short_where_one_option_varies():
    assert short_labels(["rates 1", "rates 2, 4"]) == ("rates", ["1", "2, 4"])
    several = ["head x; lr 1", "head y; lr 1"]
    assert short_labels(several) == ("setting", several)


@pytest.mark.usefixtures("no_drawing")
def test_the_option_that_varies_heads_the_table(sweep, done, tmp_path):
    folder = tmp_path / "runs/rates"
    write_report(sweep, done, folder)
    assert (folder / "table.md").read_text().startswith("| atrous_rates | seeds |")
    page = (folder / "report.html").read_text()
    assert page.count("<th>atrous_rates</th>") == 2  # scores, classes
    assert "<th>atrous_rates 2, 4</th>" in page  # pictures


def test_the_table_says_what_the_network_of_a_setting_costs(sweep, done, tmp_path, no_drawing):
    """One multiply-add a cell and weight: of resnet10_quarter with one branch, on 33×33 pixels."""
    (done[0].fit.folder / "config.yaml").write_text("loader: {crop_size: 33}")
    write_report(sweep, done, tmp_path / "runs/rates")
    by_hand = (17 * 17 * 2352 + 9 * 9 * 4608 + 25 * (14336 + 57344 + 229376 + 9 * 128 * 7)) / 1e9
    lines = csv.DictReader((tmp_path / "runs/rates/table.csv").read_text().splitlines())
    assert [line["macs"] for line in lines] == [f"{by_hand * 1e9:.0f}"] * 2 + [""] * 2
    page = (tmp_path / "runs/rates/report.html").read_text()
    assert "<th>GMAC, crop</th>" in page
    assert f"<td>{by_hand:.3f}</td>" in page


@pytest.fixture
def table(make_row):
    def row(label, disc, wire, difference=None):
        iou = {"disc": disc, "wire": wire, "cross": None}
        return make_row(label, [disc, disc], difference, iou=iou)

    return [
        row("one", 0.50, 0.30),
        row("two", 0.70, 0.29, Difference(0.2, 0.1, 0.3, 0.01)),
        row("three", 0.40, 0.30, Difference(-0.1, -0.2, -0.05, 0.01)),
        row("four", 0.51, 0.30, Difference(0.01, -0.1, 0.1, 0.01)),
    ]


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(sweep, table, panels):
    text = page(sweep, table, [], panels, "")
    seen = Page(text)
    assert seen.open == []
    assert not {"script", "link", "iframe"} & set(seen.tags)
    assert "url(" not in text
    kinds = [decoded(source)[0] for source in seen.sources]
    # image, truth and four predictions between the plots of scores, and those of fields and of taps
    # on two grids
    svg, png = "data:image/svg+xml", "data:image/png"
    assert kinds == [svg, svg, *[png] * 6, svg, svg, svg]
    for source in seen.sources:
        kind, data = decoded(source)
        if kind == svg:
            assert ET.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.usefixtures("no_drawing")
def test_the_table_marks_what_is_better_worse_or_noise(sweep, table):
    seen = Page(page(sweep, table, [], None, "gone"))
    assert [attrs.get("class") for attrs, _ in seen.tables[0][1:]] == [
        "baseline",
        "better",
        "worse",
        "noise",
    ]
    head, *lines = seen.words(0)
    assert dict(zip(head, lines[1], strict=True)) == {
        "setting": "two",
        "seeds": "2",
        "mIoU": "70.00 ± 0.00",
        "mIoU, CRF": "–",
        "difference": "+20.00 [+10.00, +30.00]",
        "p, seeds": "0.01",
        "verdict": "better",
        "parameters": "1,234",
        "GMAC, crop": "–",
        "images/s": "8.0",
        "seconds": "30",
    }


@pytest.mark.usefixtures("no_drawing")
def test_classes_are_compared_with_the_first_row(sweep, table):
    seen = Page(page(sweep, table, [], None, "gone"))
    assert seen.words(1) == [
        ["setting", "disc", "wire", "cross"],
        ["one", "50.0", "30.0", "–"],
        ["two", "+20.0", "-1.0", "–"],
        ["three", "-10.0", "+0.0", "–"],
        ["four", "+1.0", "+0.0", "–"],
    ]
    style = [[attrs.get("style") for attrs, _ in line] for _, line in seen.tables[1]]
    green, red = "background: rgba(56,161,105,{})", "background: rgba(229,62,62,{})"
    assert style[1][1:] == ["", "", ""]
    assert style[2][1:] == [green.format("0.60"), red.format("0.06"), ""]
    assert style[3][1] == red.format("0.60")  # full at ten points
    assert style[4][1] == green.format("0.06")


@pytest.mark.usefixtures("no_drawing")
def test_branches_are_listed_with_their_fields_and_taps(sweep, table, panels):
    assert Page(page(sweep, table, [], panels, "")).words(3)[1:] == [
        ["one", "1×1", "99", "21", "–"],
        ["one", "image pooling", "whole image", "121", "–"],
        ["two", "rate 6", "205", "31", "50 %"],
        ["three / four", "rate 6", "205", "31", "50 %"],
    ]


@pytest.mark.usefixtures("no_drawing")
def test_fields_and_taps_are_those_of_every_setting_and_grid(sweep, table, panels, monkeypatch):
    drawn, grids = [], []
    draw_fields, draw_taps = plots.fields_plot, plots.taps_plot

    def fields_plot(fields):
        drawn.append(list(fields))
        return draw_fields(fields)

    def taps_plot(height, width, rates):
        grids.append((height, width, rates))
        return draw_taps(height, width, rates)

    monkeypatch.setattr(plots, "fields_plot", fields_plot)
    monkeypatch.setattr(plots, "taps_plot", taps_plot)
    seen = Page(page(sweep, table, [], panels, ""))
    names = ["one\n1×1", "one\nimage pooling", "two\nrate 6", "three / four\nrate 6"]
    assert drawn == [names]
    assert grids == [(5, 5, [6]), (3, 4, [6])]
    assert "the table has all." not in seen.text
    monkeypatch.setattr("deeplab_lit.ablate.report.MAX_FIELDS", 3)
    seen = Page(page(sweep, table, [], panels, ""))
    assert drawn[1] == names[:3]
    assert "The first 3 of 4 are drawn; the table has all." in " ".join(seen.text.split())
    assert len(seen.words(3)) == 1 + 4


@pytest.mark.usefixtures("no_drawing")
def test_what_is_compared_after_the_crf_is_shown_after_it(sweep, make_row, panels):
    first = make_row("one", [0.5, 0.5], crf=[0.6, 0.6], after_crf=True)
    change = Difference(-0.2, -0.3, -0.1, 0.01)
    second = make_row("two", [0.5, 0.5], change, crf=[0.4, 0.4], after_crf=True)
    masks = panels.samples[0][3]
    del masks[2:]
    seen = Page(page(sweep, [first, second], [], panels, ""))
    assert "“one”, has mIoU 60.00 ± 0.00 % after the CRF." in seen.text
    assert "The difference is to the first row, after the CRF, with" in " ".join(seen.text.split())
    assert "difference, CRF" in seen.words(0)[0]
    assert seen.words(1)[1:] == [["one", "60.0"], ["two", "-20.0"]]
    assert "of each setting, after the CRF." in seen.text
    del masks[1:]
    before = Page(page(sweep, [replace(first, after_crf=False)], [], panels, ""))
    assert before.words(1)[1:] == [["one", "50.0"]]
    assert "of each setting, without the CRF." in before.text


@pytest.mark.usefixtures("no_drawing")
def test_names_from_files_are_text_and_no_markup(sweep, table, panels):
    evil = "<script>alert('1')</script> & \"more\""
    table[0] = replace(table[0], label=evil)
    panels.classes[evil] = panels.classes.pop("disc")
    for kept in (panels.branches, panels.grids):
        kept[evil] = kept.pop("two")
    panels.samples[0] = panels.samples[0]._replace(id=f'"><script>{evil}')
    seen = Page(page(replace(sweep, name=evil, description=evil), table, [], panels, ""))
    assert "script" not in seen.tags
    assert seen.open == []
    # title, heading, description, finding, table, classes, head of pictures, legend, branches
    assert seen.text.count(evil) == 9
    assert "a <fast> GPU" in seen.text


@pytest.mark.usefixtures("no_drawing")
def test_without_pictures_the_reason_is_said(sweep, table):
    seen = Page(page(sweep, table, ["2 runs <gone>."], None, "no <VOC> there"))
    assert "No pictures: no <VOC> there" in seen.text
    assert len(seen.sources) == 2
    assert "2 runs <gone>." in seen.text


@pytest.mark.usefixtures("no_drawing")
def test_how_it_was_made_is_named(sweep, table):
    table[1].results[0].fit["device"] = "an old CPU"
    text = Page(page(sweep, table, [], None, "")).text
    assert "torch 2.5; commit unknown; on a <fast> GPU and an old CPU. Not all" in text
    assert "of the training, on a <fast> GPU and an old CPU." in " ".join(text.split())
    assert "chosen on these same images" in " ".join(text.split())


@pytest.mark.usefixtures("no_drawing")
def test_options_of_the_command_line_are_said_to_win_over_the_description(sweep, table):
    text = Page(
        page(sweep, table, [], None, "", ["--trainer.max_steps=40", "--data.root=<b>"])
    ).text
    assert "Every run was given --trainer.max_steps=40, --data.root=<b>, which counts" in text
    assert "Every run was given" not in Page(page(sweep, table, [], None, "")).text


@pytest.mark.usefixtures("no_drawing")
def test_long_words_wrap_so_that_the_table_is_no_wider_than_it_must_be(sweep, table):
    """Labels and verdicts only: numbers stay on one line."""
    text = page(sweep, table, [], None, "")
    assert "td.words { white-space: normal; overflow-wrap: anywhere;" in text
    seen = Page(text)
    kinds = [attrs.get("class") for attrs, _ in seen.tables[0][1][1]]
    head = seen.words(0)[0]
    wraps = [name for name, kind in zip(head, kinds, strict=True) if kind == "words"]
    assert wraps == ["setting", "verdict"]
    assert [attrs.get("class") for attrs, _ in seen.tables[1][1][1]] == ["words", None, None, None]


@pytest.mark.usefixtures("no_drawing")
def test_pictures_are_pixel_for_pixel_those_of_the_samples(sweep, table, panels):
    sources = re.findall(r'src="data:image/png;base64,([^"]*)"', page(sweep, table, [], panels, ""))
    files = [io.BytesIO(base64.b64decode(source)) for source in sources]
    image, truth, *masks = (Image.open(file).convert("RGB") for file in files)
    np.testing.assert_array_equal(image, panels.samples[0][1])
    expected = np.zeros((6, 8, 3))
    expected[2, 3], expected[2, 4] = (230, 60, 60), (224, 224, 192)  # disc, void
    np.testing.assert_array_equal(truth, expected)
    assert [mask.getcolors() for mask in masks] == [
        [(48, (230, 60, 60) if disc else (0, 0, 0))] for disc in (False, True, True, False)
    ]


@pytest.mark.usefixtures("no_drawing")
def test_every_picture_says_what_it_shows(sweep, table, panels):
    table[1] = replace(table[1], option="rates", label="<2>")
    settings = ["one", "rates &lt;2&gt;", "three", "four"]
    expected = ["image img1", "truth, image img1", *(f"{x}, image img1" for x in settings)]
    text = page(sweep, table, [], panels, "")
    assert re.findall(r'<img alt="([^"]*)" src="data:image/png', text) == expected


@pytest.mark.usefixtures("no_drawing")
def test_void_is_in_the_legend_where_a_mask_shows_some(sweep, table, panels):
    def legend():
        return re.findall(r"rgb\(([^)]*)\)\"></span> (\w+)", page(sweep, table, [], panels, ""))

    classes = [("0, 0, 0", "background"), ("230, 60, 60", "disc")]
    assert legend() == [*classes, ("224, 224, 192", "void")]
    panels.samples[0][2][:] = 0
    assert legend() == classes
