import math

import numpy as np

from deeplab_lit.ablate import table
from deeplab_lit.ablate.bootstrap import Difference, compare
from deeplab_lit.ablate.findings import findings


def test_the_baseline_comes_first_then_the_others_from_best_to_worst(make_row):
    rows = [
        make_row("6", [0.40, 0.42]),
        make_row("12", [0.30, 0.32], Difference(-0.1, -0.15, -0.05, 0.01)),
        make_row("18", [0.45, 0.47], Difference(0.05, 0.02, 0.08, 0.01)),
        make_row("24", [0.60, 0.62], Difference(0.2, 0.15, 0.25, 0.01)),
    ]
    assert findings(rows) == [
        "The baseline, “6”, has mIoU 41.00 ± 1.41 %.",
        "“24” is better: +20.00 [+15.00, +25.00] points.",
        "“18” is better: +5.00 [+2.00, +8.00] points.",
        "“12” is worse: -10.00 [-15.00, -5.00] points.",
    ]


def test_what_noise_explains_is_listed_apart(make_row):
    rows = [
        make_row("6", [0.40, 0.42]),
        make_row("12", [0.42, 0.44], Difference(0.02, -0.01, 0.05, 0.01)),
        make_row("18", [0.42, 0.44], Difference(0.02, 0.01, 0.03, 0.4)),
    ]
    assert findings(rows)[1:] == [
        "Within noise of the baseline: “12”, “18”.",
        "Two seeds tell only large differences from noise: “within noise” is not “equal”.",
    ]
    three = [
        make_row("6", [0.40, 0.41, 0.42]),
        make_row("12", [0.4, 0.41, 0.45], rows[2].difference),
    ]
    assert len(findings(three)) == 2


def test_what_is_not_known_is_said(make_row):
    rows = [
        make_row("6", [0.4]),
        make_row("12", [0.5], Difference(0.1, None, None, None)),
        make_row("18", [0.6], Difference(0.2, 0.1, 0.3, None)),
        make_row("24", [0.6, 0.7], Difference(0.2, None, None, 0.01)),
    ]
    said = findings(rows)
    assert said[1] == (
        "Unknown, one seed: “12” (+10.00 points), “18” (+20.00 [+10.00, +30.00] points)."
    )
    assert said[2] == "Unknown, no counts of the same images: “24” (+20.00 points)."
    assert said[3].startswith("Some settings have one seed only: ")
    assert "no interval over images for “12”, “24”: " in said[4]
    assert len(said) == 5


def test_one_seed_gives_no_verdict_however_the_images_differ(make_row):
    """Neither better where the interval is far from zero nor noise where it contains zero."""
    rows = [
        make_row("6", [0.4]),
        make_row("12", [0.5], Difference(0.1, 0.05, 0.15, None)),
        make_row("18", [0.4], Difference(0.0, -0.01, 0.01, None)),
    ]
    said = findings(rows)
    assert said[1] == (
        "Unknown, one seed: “12” (+10.00 [+5.00, +15.00] points), "
        "“18” (+0.00 [-1.00, +1.00] points)."
    )
    assert said[2].startswith("All settings have one seed only: how much another seed would change")
    assert len(said) == 3


def test_few_images_are_counted(make_row):
    rows = [make_row("6", [0.4, 0.5, 0.6])]
    for number, expected in ((6, 1), (30, 0)):
        for result in rows[0].results:
            result.images["ids"] = np.arange(number).astype(str)
        said = [line for line in findings(rows) if "validation image" in line]
        assert len(said) == expected
        assert all("of 6 validation images: " in line for line in said)


def test_a_baseline_whose_score_is_not_known_is_said(make_row):
    rows = [make_row("6", [None, 0.4]), make_row("12", [0.5, 0.6], compare([math.nan], [0.5]))]
    assert findings(rows)[:2] == [
        "The baseline, “6”, has a score that is not known.",
        "Unknown, a score is missing: “12” (– points).",
    ]
    assert len(findings(rows)) == 2  # nothing on images, whose counts may well be there


def test_scores_over_other_classes_are_not_compared(make_row):
    first = make_row("6", [0.4, 0.5]).results
    second = make_row("12", [0.8, 0.9], setting=1, iou={"disc": 0.8, "eye": 0.9}).results
    made = table.rows([*first, *second], ["6", "12"], after_crf=False)
    assert findings(made)[1] == "Unknown, other classes: “12” (– points)."


def test_another_setting_is_not_taken_for_the_baseline(make_row):
    rows = [make_row("12", [0.5, 0.6], setting=1), make_row("18", [0.5, 0.6], setting=2)]
    said = findings(rows)
    assert said[0] == "The baseline has no result, so nothing is compared."
    assert not any("12" in line for line in said)


def test_a_mean_over_fewer_classes_is_said(make_row):
    assert not [line for line in findings([make_row("6", [0.4, 0.5])]) if "mean over" in line]
    iou = {"sky": 0.4, "road": 0.4, "car": None}
    said = findings([make_row("6", [0.4, 0.4], iou=iou)])
    assert [line for line in said if line.startswith("mIoU is the mean over 2 of 3 classes: ")]
