import base64
import io
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.ablate.bootstrap import Difference
from deeplab_lit.ablate.branches import Branch, Fields
from deeplab_lit.ablate.page import page
from deeplab_lit.ablate.pictures import Shown

COLOURS = {"background": (0, 0, 0), "disc": (230, 60, 60)}


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.alts = []
        self.tables = []  # of each: (attributes of the row, [(attributes, text) of its cells])
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.alts += [attrs["alt"]] if "alt" in attrs else []
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


@pytest.fixture
def shown():
    """One image, of which the settings' predictions are background, disc, disc, background."""
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    truth = np.zeros((6, 8), np.uint8)
    truth[2, 3:5] = 1, 255
    masks = [np.full((6, 8), kind, np.uint8) for kind in (0, 1, 1, 0)]
    field = torch.full((6, 8), 1 / 48)
    atrous = Branch("rate 6", 6, 205, 31, field, 0.5)
    plain = Branch("1×1", None, 99, 21, field, None)
    pooling = Branch("image pooling", None, None, 121, field, None)
    branches = {"one": [plain, pooling], "two": [atrous], "three / four": [atrous]}
    return Shown(COLOURS, [("img1", image, truth, masks)], Fields(branches, (5, 5)))


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
    # image, truth and four predictions between the plots of scores and those of fields
    svg, png = "data:image/svg+xml", "data:image/png"
    assert kinds == [svg, svg, *[png] * 6, svg, svg]
    for source in seen.sources:
        kind, data = decoded(source)
        if kind == svg:
            assert ET.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"


def test_pictures_are_pixel_for_pixel_those_of_the_samples(sweep, rows, shown):
    sources = Page(page(sweep, rows, [], shown, "")).sources[2:8]
    image, truth, *masks = (Image.open(io.BytesIO(decoded(s)[1])).convert("RGB") for s in sources)
    np.testing.assert_array_equal(image, shown.samples[0][1])
    expected = np.zeros((6, 8, 3))
    expected[2, 3], expected[2, 4] = (230, 60, 60), (224, 224, 192)  # disc, void
    np.testing.assert_array_equal(truth, expected)
    assert [mask.getcolors() for mask in masks] == [
        [(48, (230, 60, 60) if disc else (0, 0, 0))] for disc in (False, True, True, False)
    ]


def test_every_picture_says_what_it_shows(sweep, rows, shown):
    rows[1] = replace(rows[1], option="rates", label="<2>")
    alts = Page(page(sweep, rows, [], shown, "")).alts[2:8]
    settings = ["one", "rates <2>", "three", "four"]
    expected = ["image img1", "truth, image img1", *(f"{x}, image img1" for x in settings)]
    assert alts == expected


def test_void_is_in_the_legend_where_a_mask_shows_some(sweep, rows, shown):
    def legend():
        return page(sweep, rows, [], shown, "").count('class="swatch"')

    seen = Page(page(sweep, rows, [], shown, "")).text
    assert "disc\u2002" in seen
    assert "void\u2002" in seen
    assert legend() == 3
    shown.samples[0][2][:] = 0
    assert legend() == 2


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
    shown.fields.branches[evil] = shown.fields.branches.pop("two")
    shown.samples[0] = (f'"><script>{evil}', *shown.samples[0][1:])
    seen = Page(page(replace(sweep, name=evil, description=evil), rows, [], shown, ""))
    assert "script" not in seen.tags
    assert seen.open == []
    # title, heading, description, finding, table, classes, head of pictures, legend, branches
    assert seen.text.count(evil) == 9
    assert "a <fast> GPU" in seen.text


def test_without_pictures_the_reason_is_said(sweep, rows):
    seen = Page(page(sweep, rows, ["2 trials <gone>."], None, "no <VOC> there"))
    assert "No pictures: no <VOC> there" in seen.text
    assert len(seen.sources) == 2
    assert "2 trials <gone>." in seen.text


def test_how_it_was_made_is_named(sweep, rows):
    rows[1].results[0].fit["device"] = "an old CPU"
    text = Page(page(sweep, rows, [], None, "")).text
    assert "torch 2.5; commit unknown; on a <fast> GPU and an old CPU. Not all" in text
    assert "of the training, on a <fast> GPU and an old CPU." in " ".join(text.split())
    assert "chosen on these same images" in " ".join(text.split())
