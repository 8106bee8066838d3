import base64
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from deeplab_lit.ablate import plots
from deeplab_lit.ablate.bootstrap import Difference
from deeplab_lit.ablate.page import page


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.tables = []  # of each: (attributes of the row, [(attributes, text) of its cells])
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append((attrs, []))
        elif tag in ("td", "th"):
            self.tables[-1][-1][1].append([attrs, ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][1][-1][1] += data

    def words(self, table):
        return [[text for _, text in line] for _, line in self.tables[table]]


@pytest.fixture
def rows(make_row):
    def row(label, disc, wire, difference=None):
        iou = {"disc": disc, "wire": wire, "cross": None}
        return make_row(label, [disc, disc], difference, iou=iou)

    return [
        row("one", 0.50, 0.30),
        row("two", 0.70, 0.29, Difference(0.2, 0.1, 0.3, 0.01)),
        row("three", 0.40, 0.30, Difference(-0.1, -0.2, -0.05, 0.01)),
        row("four", 0.51, 0.30, Difference(0.01, -0.1, 0.1, 0.01)),
    ]


def decoded(source):
    kind, _, data = source.partition(";base64,")
    return kind, base64.b64decode(data, validate=True)


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(sweep, rows, shown):
    text = page(sweep, rows, [], shown, "")
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


def test_the_table_marks_what_is_better_worse_or_noise(sweep, rows):
    seen = Page(page(sweep, rows, [], None, "gone"))
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
        "images/s": "8.0",
        "seconds": "30",
    }


def test_classes_are_compared_with_the_first_row(sweep, rows):
    seen = Page(page(sweep, rows, [], None, "gone"))
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


def test_branches_are_listed_with_their_fields_and_taps(sweep, rows, shown):
    assert Page(page(sweep, rows, [], shown, "")).words(3)[1:] == [
        ["one", "1×1", "99", "21", "–"],
        ["one", "image pooling", "whole image", "121", "–"],
        ["two", "rate 6", "205", "31", "50 %"],
        ["three / four", "rate 6", "205", "31", "50 %"],
    ]


def test_fields_and_taps_are_those_of_every_setting_and_grid(sweep, rows, shown, monkeypatch):
    drawn, grids = [], []

    def fields_plot(fields):
        drawn.append(list(fields))
        return plots.fields_plot(fields)

    def taps_plot(height, width, rates):
        grids.append((height, width, rates))
        return plots.taps_plot(height, width, rates)

    monkeypatch.setattr("deeplab_lit.ablate.page.fields_plot", fields_plot)
    monkeypatch.setattr("deeplab_lit.ablate.page.taps_plot", taps_plot)
    seen = Page(page(sweep, rows, [], shown, ""))
    names = ["one\n1×1", "one\nimage pooling", "two\nrate 6", "three / four\nrate 6"]
    assert drawn == [names]
    assert grids == [(5, 5, [6]), (3, 4, [6])]
    assert "; the table has all." not in seen.text
    monkeypatch.setattr("deeplab_lit.ablate.page.MOST_FIELDS", 3)
    seen = Page(page(sweep, rows, [], shown, ""))
    assert drawn[1] == names[:3]
    assert "The first 3 of 4 are drawn; the table has all." in seen.text
    assert len(seen.words(3)) == 1 + 4


def test_what_is_compared_after_the_crf_is_shown_after_it(sweep, make_row, shown):
    first = make_row("one", [0.5, 0.5], crf=[0.6, 0.6], after_crf=True)
    change = Difference(-0.2, -0.3, -0.1, 0.01)
    second = make_row("two", [0.5, 0.5], change, crf=[0.4, 0.4], after_crf=True)
    masks = shown.samples[0][3]
    del masks[2:]
    seen = Page(page(sweep, [first, second], [], shown, ""))
    assert "“one”, has mIoU 60.00 ± 0.00 % after the CRF." in seen.text
    assert "The difference is to the first row, after the CRF, with" in " ".join(seen.text.split())
    assert "difference, CRF" in seen.words(0)[0]
    assert seen.words(1)[1:] == [["one", "60.0"], ["two", "-20.0"]]
    assert "of each setting, after the CRF." in seen.text
    del masks[1:]
    before = Page(page(sweep, [replace(first, after_crf=False)], [], shown, ""))
    assert before.words(1)[1:] == [["one", "50.0"]]
    assert "of each setting, without the CRF." in before.text


def test_names_from_files_are_text_and_no_markup(sweep, rows, shown):
    evil = "<script>alert('1')</script> & \"more\""
    rows[0] = replace(rows[0], label=evil)
    shown.classes[evil] = shown.classes.pop("disc")
    for kept in (shown.fields.branches, shown.fields.grids):
        kept[evil] = kept.pop("two")
    shown.samples[0] = (f'"><script>{evil}', *shown.samples[0][1:])
    seen = Page(page(replace(sweep, name=evil, description=evil), rows, [], shown, ""))
    assert "script" not in seen.tags
    assert seen.open == []
    # title, heading, description, finding, table, classes, head of pictures, legend, branches
    assert seen.text.count(evil) == 9
    assert "a <fast> GPU" in seen.text


def test_without_pictures_the_reason_is_said(sweep, rows):
    seen = Page(page(sweep, rows, ["2 runs <gone>."], None, "no <VOC> there"))
    assert "No pictures: no <VOC> there" in seen.text
    assert len(seen.sources) == 2
    assert "2 runs <gone>." in seen.text


def test_how_it_was_made_is_named(sweep, rows):
    rows[1].results[0].fit["device"] = "an old CPU"
    text = Page(page(sweep, rows, [], None, "")).text
    assert "torch 2.5; commit unknown; on a <fast> GPU and an old CPU. Not all" in text
    assert "of the training, on a <fast> GPU and an old CPU." in " ".join(text.split())
    assert "chosen on these same images" in " ".join(text.split())


def test_options_of_the_command_line_are_said_to_win_over_the_description(sweep, rows):
    text = Page(page(sweep, rows, [], None, "", ["--trainer.max_steps=40", "--data.root=<b>"])).text
    assert "Every run was given --trainer.max_steps=40, --data.root=<b>, which counts" in text
    assert "Every run was given" not in Page(page(sweep, rows, [], None, "")).text


def test_long_words_wrap_so_that_the_table_is_no_wider_than_it_must_be(sweep, rows):
    """Labels and verdicts only: numbers stay on one line."""
    text = page(sweep, rows, [], None, "")
    assert "td.words { white-space: normal; overflow-wrap: anywhere;" in text
    seen = Page(text)
    kinds = [attrs.get("class") for attrs, _ in seen.tables[0][1][1]]
    head = seen.words(0)[0]
    wraps = [name for name, kind in zip(head, kinds, strict=True) if kind == "words"]
    assert wraps == ["setting", "verdict"]
    assert [attrs.get("class") for attrs, _ in seen.tables[1][1][1]] == ["words", None, None, None]
