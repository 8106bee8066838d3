"""Pages: what every one of them promises, whatever it shows."""

import io
import xml.etree.ElementTree as ET

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure
from PIL import Image

from deeplab_lit.pictures.web_page import draw, render

TEMPLATE = """\
{% extends "web_page.html.j2" %}
{% block title %}{{ name }}{% endblock %}
{% block content %}<h1>{{ name }}</h1>{% endblock %}
"""


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "mine.html.j2"
    path.write_text(TEMPLATE)
    return path


def test_a_figure_becomes_a_file_with_something_on_it():
    figure = Figure(figsize=(1.9, 2.06))
    figure.add_subplot().imshow([[0, 1], [2, 3]])
    png = Image.open(io.BytesIO(draw(figure, "png")))
    assert png.size == (228, 247)  # inches of 120 pixels
    assert len(png.convert("RGB").getcolors(100_000)) > 10
    assert ET.fromstring(draw(figure, "svg")).tag == "{http://www.w3.org/2000/svg}svg"


def test_every_page_is_light_or_dark_as_the_reader_likes_and_needs_nothing_else(template):
    text = render(template, {"name": "<b>"})
    assert text.startswith("<!doctype html>")
    assert "<h1>&lt;b&gt;</h1>" in text
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    assert not any(word in text for word in ("url(", "@import", "<script", "<link", "http"))


def test_a_page_that_lacks_a_value_is_refused(template):
    with pytest.raises(UndefinedError, match="name"):
        render(template, {})
