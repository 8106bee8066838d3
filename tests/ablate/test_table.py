import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from deeplab_lit.ablate.bootstrap import Difference
from deeplab_lit.ablate.results import read_results
from deeplab_lit.ablate.table import as_csv, cells, markdown, rows, spread, verdict
from deeplab_lit.ablate.words import findings

LABELS = ["1", "2, 4"]


@pytest.fixture
def made(runs, make_run):
    """Rows of runs in which the second setting is better by 20 points, on every image."""
    scores = {(0, 0): 0.40, (0, 1): 0.42, (1, 0): 0.60, (1, 1): 0.62}
    for run in runs:
        better = 20 * run.setting
        hits = np.random.default_rng(run.seed).integers(40, 60, (9, 7)) + better
        make_run(run, scores[run.setting, run.seed], crf=0.7, hits=hits)
    return rows(read_results(runs)[0], LABELS, after_crf=False)


def test_a_row_has_mean_and_spread_over_seeds_and_the_difference(made):
    baseline, other = map(cells, made)
    assert baseline["mIoU"] == "41.00 ± 1.41"  # the sample's standard deviation: 2 / √2
    assert baseline["mIoU, CRF"] == "70.00 ± 0.00"
    assert baseline["difference"] == "–"
    assert other["difference"].startswith("+20.00 [+")
    assert other["verdict"] == "better"
    # hits of 49.5 and 69.5 on average, of 100 true and 100 predicted pixels
    expected = 69.5 / 130.5 - 49.5 / 150.5
    assert made[1].difference.low < expected < made[1].difference.high


def test_with_more_settings_it_takes_more_to_be_more_than_noise(make_row):
    """Welch alone gives the second setting p = 0.03; two settings were compared."""
    results = []
    for setting, mious in enumerate([[0.50, 0.52, 0.54], [0.56, 0.58, 0.60], [0.51, 0.52, 0.53]]):
        results += make_row("", mious, setting=setting).results
    p = [row.difference and row.difference.p_seeds for row in rows(results, "abc", False)]
    alone = [row.difference and row.difference.p_seeds for row in rows(results[:6], "ab", False)]
    assert alone[1] < 0.05
    assert p[1] == pytest.approx(2 * alone[1])
    assert cells(rows(results, "abc", False)[1])["p, seeds"] == f"{p[1]:.2g}"


def test_a_row_has_size_speed_and_time(made):
    assert cells(made[1])["parameters"] == "1,234"
    assert cells(made[1])["GMAC, crop"] == "–"
    assert cells(replace(made[1], macs=373_656_133_632))["GMAC, crop"] == "373.656"
    assert cells(made[1])["images/s"] == "14.0"  # the median of 10, 14, 90
    assert cells(made[1])["seconds"] == "12"


def test_without_counts_of_images_there_is_no_interval(runs, make_run):
    for run in runs:
        make_run(run, 0.5 + 0.2 * run.setting + 0.01 * run.seed)
    other = rows(read_results(runs)[0], LABELS, after_crf=False)[1]
    assert cells(other)["difference"] == "+20.00"
    assert cells(other)["mIoU, CRF"] == "–"
    assert other.difference.low is None


def test_after_a_failed_seed_the_difference_is_still_that_of_the_table(make_row):
    """All seeds count on both sides: the means of the table, and Welch's test."""
    results = [
        *make_row("", [0.50, 0.52, 0.58], setting=0).results,
        *make_row("", [0.60, 0.66], setting=1).results,
    ]
    baseline, other = rows(results, LABELS, after_crf=False)
    assert cells(baseline)["mIoU"].startswith("53.33 ")
    assert cells(other)["mIoU"].startswith("63.00 ")
    assert cells(other)["difference"] == "+9.67"
    expected = stats.ttest_ind([0.60, 0.66], [0.50, 0.52, 0.58], equal_var=False).pvalue
    assert other.difference.p_seeds == pytest.approx(expected)


def test_after_a_failed_seed_the_interval_is_over_all_seeds(runs, make_run):
    """Run 3 has failed: the baseline keeps both its seeds, of which the second is better."""
    for run, kept in zip(runs[:3], (40, 60, 70), strict=True):
        hits = np.random.default_rng(run.seed).integers(-4, 5, (9, 7)) + kept
        make_run(run, kept / 100, hits=hits)
    other = rows(read_results(runs)[0], LABELS, after_crf=False)[1]
    assert other.difference.mean == pytest.approx(0.60 - 0.55)
    assert other.difference.low < 60 / 140 - (40 / 160 + 70 / 130) / 2 < other.difference.high
    assert cells(other)["verdict"] == "unknown: one seed"


def test_settings_that_share_trainings_are_compared_where_both_were_scored(make_row):
    first = make_row("", [0.50, 0.60, 0.70], setting=0).results
    second = [
        replace(r, run=replace(r.run, setting=1), scores=r.scores | {"miou": r.miou + gain})
        for r, gain in zip(first[1:], (0.01, 0.02), strict=True)
    ]
    other = rows([*first, *second], LABELS, after_crf=False)[1]
    assert other.difference.mean == pytest.approx(0.015)
    expected = stats.ttest_rel([0.61, 0.72], [0.60, 0.70]).pvalue
    assert other.difference.p_seeds == pytest.approx(expected)


def test_a_score_that_is_not_known_spoils_no_other_row(make_row):
    results = []
    for setting, mious in enumerate([[0.50, 0.52], [None, 0.58], [0.80, 0.81]]):
        results += make_row("", mious, setting=setting).results
    _, unknown, better = rows(results, "abc", False)
    assert cells(unknown)["mIoU"] == cells(unknown)["difference"] == "–"
    assert cells(unknown)["verdict"] == "unknown: a score is missing"
    alone = stats.ttest_ind([0.80, 0.81], [0.50, 0.52], equal_var=False).pvalue
    assert better.difference.p_seeds == pytest.approx(alone)


def test_without_the_baseline_nothing_is_compared(runs, make_run):
    make_run(runs[1], 0.5)
    (only,) = rows(read_results(runs)[0], LABELS, after_crf=False)
    assert only.difference is None


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


SUBSETS = {"16": ("disc", "square"), "13": ("disc",)}


@pytest.fixture
def scored_by(make_run):
    """Writes a run that has scored subsets of the classes: scored_by(run, rule, hits)."""

    def write(run, rule, hits):
        make_run(run, 0.3, hits=hits)
        file, counts = (run.validate.folder / name for name in ("results.json", "images.npz"))
        content = json.loads(file.read_text())
        iou = hits.sum(0) / (2 * 100 * len(hits) - hits.sum(0))
        kinds = {"background": 0, "disc": 1, "square": 2}
        for name, members in SUBSETS.items():
            indices = [kinds[member] for member in members]
            content["final"][f"miou{name}"] = float(iou[indices].mean())
        parts = {name: dict.fromkeys(members, 0.5) for name, members in SUBSETS.items()}
        content["final"]["subsets"] = {"rule": rule, "iou": parts}
        file.write_text(json.dumps(content))
        if rule == "pixels":
            with np.load(counts) as arrays:
                kept = dict(arrays)
            np.savez(counts, **kept | {"counts_pixels": kept["counts"], "counts": kept["counts"]})

    return write


@pytest.mark.parametrize("rule", ["rows", "pixels"])
def test_settings_are_compared_by_a_subset_of_the_classes(runs, scored_by, rule):
    for run in runs:
        hits = np.random.default_rng(run.seed).integers(40, 60, (9, 7))
        hits[:, 1:3] += 20 * run.setting  # of disc and square
        scored_by(run, rule, hits)
    baseline, other = rows(read_results(runs)[0], LABELS, after_crf=False, subset="16")
    assert cells(other)["mIoU"] == cells(baseline)["mIoU"] == "30.00 ± 0.00"
    assert other.difference.low < other.difference.mean < other.difference.high
    gain = np.mean(other.compared()) - np.mean(baseline.compared())
    assert other.difference.mean == pytest.approx(gain)
    assert cells(other)["difference, mIoU16"].startswith("+2")
    assert list(cells(other))[2:6] == ["mIoU", "mIoU, CRF", "mIoU16", "mIoU13"]
    lines = list(csv.DictReader(as_csv([baseline, other]).splitlines()))
    assert float(lines[0]["miou16"]) == baseline.compared()[0]
    assert lines[0]["miou16_crf"] == ""


def test_subsets_by_two_rules_and_subsets_that_are_not_scored_are_not_compared(runs, scored_by):
    for run in runs:
        scored_by(run, ("rows", "pixels")[run.setting], np.full((4, 7), 50))
    results = read_results(runs)[0]
    other = rows(results, LABELS, after_crf=False, subset="16")[1]
    assert verdict(other.difference) == "unknown: mIoU16 by another rule"
    assert verdict(rows(results, LABELS, after_crf=False)[1].difference) == "within noise"
    other = rows(results, LABELS, after_crf=False, subset="17")[1]
    assert verdict(other.difference) == "unknown: mIoU17 is not scored"
    said = findings(rows(results, LABELS, after_crf=False))
    assert "mIoU16 and mIoU13 by --eval.subsets rows or pixels, so not all of them compare." in said
