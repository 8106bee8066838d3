import math

import numpy as np
import pytest
from scipy import stats

from deeplab_lit.ablate.bootstrap import Difference, compare, corrected, interval, miou


def counts_of(hits, size=100):
    """(N,3,C): every image has `size` true and `size` predicted pixels of each class."""
    hits = np.asarray(hits)
    return np.stack([hits, np.full_like(hits, size), np.full_like(hits, size)], axis=1)


def test_miou_of_counts_is_that_of_a_confusion_matrix():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 4, (2, 5, 50))
    truth[truth == 3] = 0  # class 3 is predicted only; class 4 is absent
    counts = np.array(
        [
            [[np.sum((t == c) & (g == c)), np.sum(t == c), np.sum(g == c)] for c in range(5)]
            for t, g in zip(truth, guess, strict=True)
        ]
    ).transpose(0, 2, 1)
    matrix = np.zeros((5, 5))
    np.add.at(matrix, (truth.ravel(), guess.ravel()), 1)
    iou = [matrix[c, c] / (matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]) for c in range(4)]
    assert miou(counts.sum(0)) == pytest.approx(np.mean(iou))


def test_the_interval_is_that_of_a_slow_bootstrap():
    rng = np.random.default_rng(1)
    ours, theirs = (counts_of(rng.integers(40, 90, (12, 3))) for _ in range(2))
    low, high = interval([ours], [theirs], draws=4000)
    slow = []
    for _ in range(4000):
        drawn = rng.integers(0, 12, 12)
        slow.append(miou(ours[drawn].sum(0)) - miou(theirs[drawn].sum(0)))
    expected = np.percentile(slow, [2.5, 97.5])
    np.testing.assert_allclose([low, high], expected, atol=0.1 * np.ptp(expected))


def test_pairing_cancels_what_is_common_to_the_images():
    hits = np.random.default_rng(2).integers(10, 80, (30, 3))  # easy and hard images
    low, high = interval([counts_of(hits + 2)], [counts_of(hits)])
    assert 0 < low < high < 0.03
    shuffled = np.random.default_rng(3).permutation(hits)
    assert np.ptp(interval([counts_of(shuffled + 2)], [counts_of(hits)])) > 3 * (high - low)


@pytest.mark.filterwarnings("error")
def test_draws_of_nothing_but_void_do_not_count():
    ours, theirs = counts_of([[60, 61], [0, 0], [0, 0]]), counts_of([[40, 41], [0, 0], [0, 0]])
    for counts in (ours, theirs):
        counts[1:] = 0
    expected = miou(ours.sum(0)) - miou(theirs.sum(0))
    assert interval([ours], [theirs]) == pytest.approx((expected, expected))


def test_images_that_cannot_be_paired_are_refused():
    with pytest.raises(ValueError, match="paired"):
        interval([counts_of([[1, 2]])], [counts_of([[1, 2], [3, 4]])])


def test_a_difference_that_other_seeds_may_not_show_is_noise():
    near = compare([0.50, 0.60], [0.48, 0.59])
    assert near.verdict == "within noise"
    assert near.low is None
    counts = [counts_of([[60, 61]] * 2)] * 3, [counts_of([[40, 41]] * 2)] * 3
    far = compare([0.70, 0.71, 0.72], [0.50, 0.51, 0.52], *counts)
    assert far.verdict == "better"
    assert far.mean == pytest.approx(0.2)
    # Welch, by hand: t = 0.2 / sqrt(2 · 0.01² / 3) = 24.5 with 4 degrees of freedom
    assert far.p_seeds == pytest.approx(1.6e-5, rel=0.1)


def test_a_difference_that_other_images_may_not_show_is_noise():
    rng = np.random.default_rng(4)
    hits = rng.integers(30, 80, (10, 3))
    ours = [counts_of(hits + rng.integers(-20, 20, hits.shape)) for _ in range(2)]
    found = compare([0.60, 0.601], [0.59, 0.591], ours, [counts_of(hits)] * 2)
    assert found.p_seeds < 0.05
    assert found.low < 0 < found.high
    assert found.verdict == "within noise"


def test_seeds_need_not_be_equally_many():
    """Welch's t-test by its formula, with the degrees of freedom of Welch and Satterthwaite."""
    ours, theirs = [0.70, 0.72, 0.75, 0.71], [0.66, 0.69]
    parts = [np.var(x, ddof=1) / len(x) for x in (ours, theirs)]
    freedom = sum(parts) ** 2 / sum(
        v**2 / (len(x) - 1) for v, x in zip(parts, (ours, theirs), strict=True)
    )
    t = (np.mean(ours) - np.mean(theirs)) / np.sqrt(sum(parts))
    found = compare(ours, theirs)
    assert found.mean == pytest.approx(0.72 - 0.675)
    assert found.p_seeds == pytest.approx(2 * stats.t.sf(t, freedom))
    assert found.p_seeds == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False).pvalue)


def test_the_interval_takes_each_side_s_own_seeds():
    rng = np.random.default_rng(5)
    one, two, three = (counts_of(rng.integers(40, 90, (12, 3))) for _ in range(3))
    low, high = interval([one, two], [three])
    mean = (miou(one.sum(0)) + miou(two.sum(0))) / 2 - miou(three.sum(0))
    assert low < mean < high


def test_one_seed_says_nothing_of_others():
    counts = [counts_of([[60, 61]] * 2)], [counts_of([[40, 41]] * 2)]
    found = compare([0.6], [0.5], *counts)
    assert found.low > 0
    assert found.p_seeds is None
    assert found.verdict == "unknown"
    assert compare([0.6, 0.61], [0.5]).verdict == "unknown"
    equal = compare([0.5], [0.5], counts[0], counts[0])
    assert (equal.low, equal.high) == (0, 0)
    assert equal.verdict == "unknown"  # other seeds may differ
    assert equal.missing == "one seed"


def test_a_score_that_is_not_known_makes_nothing_better_or_worse():
    gone = compare([0.6, math.nan], [0.5, 0.5])
    assert gone.verdict == "unknown"
    assert gone.p_seeds is None
    differences = [Difference(0.1, 0.05, 0.15, p) for p in (0.01, 0.04)]
    held = corrected([differences[0], gone, differences[1]])
    assert [d.p_seeds for d in held] == pytest.approx([0.02, None, 0.04])
    assert held[0].verdict == "better"
    for broken in ((math.nan, math.nan, 0.01), (0.05, 0.15, math.nan)):
        assert Difference(0.1, *broken).verdict == "within noise"


def test_seeds_that_change_nothing_say_nothing_of_other_seeds():
    """Equal scores of both seeds: of everything taken for background, or a seed without effect."""
    counts = [counts_of([[60, 61]] * 2)] * 2, [counts_of([[40, 41]] * 2)] * 2
    assert compare([0.5, 0.5], [0.5, 0.5], *counts).verdict == "within noise"
    apart = compare([0.6, 0.6], [0.5, 0.5], *counts)
    assert (apart.verdict, apart.missing) == ("unknown", "no spread between seeds")
    paired = compare([0.75, 1.0], [0.5, 0.75], *counts, same_trainings=True)
    assert paired.missing == "no spread between seeds"
    rounded = compare([0.6, 0.6 + 1e-16], [0.5, 0.5], *counts)
    assert rounded.missing == "no spread between seeds"


def test_two_seeds_tell_what_is_far_beyond_their_spread():
    """Welch by hand: t = 0.2 / sqrt(2 · (0.02² / 2) / 2) = 14.1 with 2 degrees of freedom."""
    counts = [counts_of([[60, 61]] * 2)] * 2, [counts_of([[40, 41]] * 2)] * 2
    far = compare([0.70, 0.72], [0.50, 0.52], *counts)
    assert far.p_seeds == pytest.approx(2 * stats.t.sf(14.142, 2), rel=1e-3)
    assert far.verdict == "better"
    near = compare([0.55, 0.57], [0.50, 0.52], *counts)
    assert near.verdict == "within noise"  # t = 3.5: five points, and two of spread


def test_one_image_has_no_interval():
    counts = [counts_of([[60, 61]])] * 2, [counts_of([[40, 41]])] * 2
    found = compare([0.70, 0.71], [0.50, 0.52], *counts)
    assert found.low is found.high is None
    assert (found.verdict, found.missing) == ("unknown", "one image")


def test_settings_that_share_their_trainings_are_compared_network_by_network():
    """By hand: gains 0.01, 0.02, 0.03; t = 0.02 / (0.01 / √3) = 3.46 with 2 degrees of freedom."""
    ours, theirs = [0.51, 0.62, 0.73], [0.50, 0.60, 0.70]
    assert compare(ours, theirs).p_seeds > 0.7
    paired = compare(ours, theirs, same_trainings=True)
    assert paired.p_seeds == pytest.approx(0.0742, abs=1e-4)


def test_p_is_corrected_for_the_number_of_settings():
    """Holm by hand: 4·0.005, 3·0.01, 2·0.03, and 1·0.04, which may not be below the one before."""
    given = [0.01, 0.04, None, 0.03, 0.005]
    differences = [None, *(Difference(0.1, 0.05, 0.15, p) for p in given)]
    found = corrected(differences)
    assert found[0] is None
    assert [d.p_seeds for d in found[1:]] == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert corrected([Difference(0.1, None, None, 0.7)] * 2)[0].p_seeds == 1


def test_one_comparison_needs_no_correction():
    only = Difference(0.1, 0.05, 0.15, 0.03)
    assert corrected([None, only]) == [None, only]
