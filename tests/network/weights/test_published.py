"""The page of published weights says what the table that commands read says."""

import re
from pathlib import Path

import pytest

import deeplab_lit
from deeplab_lit.network.weights.published import NAMED, PUBLISHED

PAGE = Path(deeplab_lit.__file__).parent / "network/weights/formats/README.md"
TITLES = {"imagenet": "ImageNet", "coco": "COCO", "unknown": "disputed"}


@pytest.fixture(scope="module")
def rows():
    """Cells of each row of the page's tables."""
    lines = PAGE.read_text("utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]


def test_every_file_of_the_table_stands_on_the_page_with_what_is_known_of_it(rows):
    for entry in PUBLISHED:
        [row] = [r for r in rows if f"`{entry.file}`" in r[1] and entry.origin == r[2]]
        assert entry.name is None or row[0] == f"`{entry.name}`"
        trained, quoted = row[3], row[4]
        assert TITLES[entry.init] in trained
        for split in entry.trained_on:
            assert split.replace(":", " ") in trained
        if entry.quoted:
            assert f"{entry.quoted.split.replace(':', ' ')} {entry.quoted.miou}" in quoted
            assert entry.quoted.source in quoted
        else:
            assert not re.search(r"\d\d\.\d", quoted)


def test_every_name_of_the_page_has_its_address_and_license_there(rows):
    names = {cells[0].strip("`") for cells in rows if re.fullmatch(r"`[a-z0-9]+/\w+`", cells[0])}
    assert names == NAMED.keys()
    text = PAGE.read_text("utf-8")
    for entry in NAMED.values():
        assert entry.url.rpartition("/")[0] in text
        assert entry.license in text
