import csv

import numpy as np
import pytest

from deeplab_lit.ablate.bootstrap import Difference
from deeplab_lit.ablate.results import read_results
from deeplab_lit.ablate.table import as_csv, cells, markdown, rows, spread, verdict

LABELS = ["1", "2, 4"]


@pytest.fixture
def made(trials, make_run):
    """Rows of runs in which the second setting is better by 20 points, on every image."""
    scores = {(0, 0): 0.40, (0, 1): 0.42, (1, 0): 0.60, (1, 1): 0.62}
    for trial in trials:
        better = 20 * trial.setting
        hits = np.random.default_rng(trial.seed).integers(40, 60, (9, 7)) + better
        make_run(trial, scores[trial.setting, trial.seed], crf=0.7, hits=hits)
    return rows(read_results(trials), LABELS, after_crf=False)


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


def test_a_row_has_size_speed_and_time(made, trials):
    import deeplab_lit

    net = deeplab_lit.load(trials[1].fit.folder / "checkpoints/best.ckpt")
    expected = sum(p.numel() for p in net.parameters())
    assert cells(made[1])["parameters"] == f"{expected:,}"
    assert cells(made[1])["images/s"] == "14.0"  # the median of 10, 14, 90
    assert cells(made[1])["seconds"] == "12"


def test_without_counts_of_images_there_is_no_interval(trials, make_run):
    for trial in trials:
        make_run(trial, 0.5 + 0.2 * trial.setting + 0.01 * trial.seed)
    other = rows(read_results(trials), LABELS, after_crf=False)[1]
    assert cells(other)["difference"] == "+20.00"
    assert cells(other)["mIoU, CRF"] == "–"
    assert other.difference.low is None


def test_only_seeds_that_both_have_are_compared(trials, make_run):
    for trial, miou in zip(trials[:3], (0.5, 0.6, 0.9), strict=True):
        make_run(trial, miou)
    other = rows(read_results(trials), LABELS, after_crf=False)[1]
    assert other.difference.mean == pytest.approx(0.1)
    assert cells(other)["verdict"] == "better, noise unknown"


def test_without_the_baseline_nothing_is_compared(trials, make_run):
    make_run(trials[1], 0.5)
    (only,) = rows(read_results(trials), LABELS, after_crf=False)
    assert only.difference is None


def test_the_files_hold_the_same_numbers(made):
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


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (None, ""),
        (Difference(0.1, 0.05, 0.15, 0.01), "better"),
        (Difference(-0.1, -0.15, -0.05, 0.01), "worse"),
        (Difference(0.1, -0.05, 0.15, 0.01), "within noise"),
        (Difference(0.1, 0.05, 0.15, 0.3), "within noise"),
        (Difference(0.1, 0.05, 0.15, None), "better (one seed)"),
        (Difference(0.1, None, None, None), "better, noise unknown"),
        (Difference(0.1, None, None, 0.01), "better"),
    ],
)
def test_the_verdict_says_when_a_difference_is_noise(difference, expected):
    assert verdict(difference) == expected


def test_spread_of_one_or_none():
    assert spread([0.5]) == "50.00"
    assert spread([]) == "–"
