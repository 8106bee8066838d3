import csv
import math

import pytest

from deeplab_lit.ablate.bootstrap import Difference
from deeplab_lit.ablate.cells import as_csv, markdown, spread, verdict


def test_the_files_hold_the_same_numbers(make_row):
    made = [make_row("1", [0.40, 0.42]), make_row("2, 4", [0.60, 0.62])]
    table = markdown(made).splitlines()
    assert table[0].startswith("| setting | seeds | mIoU | mIoU, CRF | difference |")
    assert len(table) == 4
    lines = list(csv.DictReader(as_csv(made).splitlines()))
    assert [(line["setting"], line["seed"]) for line in lines] == [
        ("1", "0"),
        ("1", "1"),
        ("2, 4", "0"),
        ("2, 4", "1"),
    ]
    assert float(lines[3]["miou"]) == 0.62


def test_a_bar_in_a_name_is_no_column(make_row):
    table = markdown([make_row("a|b\nc", [0.5])]).splitlines()
    assert len(table) == 3
    assert table[2].startswith(r"| a\|b c | 1 |")


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (None, ""),
        (Difference(0.1, 0.05, 0.15, 0.01), "better"),
        (Difference(-0.1, -0.15, -0.05, 0.01), "worse"),
        (Difference(0.1, -0.05, 0.15, 0.01), "within noise"),
        (Difference(0.1, 0.05, 0.15, 0.3), "within noise"),
        (Difference(0.1, 0.05, 0.15, None), "unknown: one seed"),
        (Difference(-0.1, -0.05, 0.15, None), "unknown: one seed"),
        (
            Difference(0.1, 0.05, 0.15, None, "no spread between seeds"),
            "unknown: no spread between seeds",
        ),
        (Difference(0.1, None, None, None), "unknown: one seed"),
        (Difference(0.1, None, None, 0.01), "unknown: no counts of the same images"),
        (Difference(0.1, None, None, 0.3), "within noise"),
        (Difference(math.nan, None, None, None), "unknown: a score is missing"),
    ],
)
def test_the_verdict_says_when_a_difference_is_noise(difference, expected):
    assert verdict(difference) == expected


def test_spread_of_one_or_none():
    assert spread([0.5]) == "50.00"
    assert spread([]) == "–"
    assert spread([0.5, math.nan]) == "–"
