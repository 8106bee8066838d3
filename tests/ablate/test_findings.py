from deeplab_lit.ablate.bootstrap import Difference
from deeplab_lit.ablate.findings import findings


def test_the_baseline_comes_first_then_the_others_from_best_to_worst(make_row):
    rows = [
        make_row("6", [0.40, 0.42]),
        make_row("12", [0.30, 0.32], Difference(-0.1, -0.15, -0.05, 0.01)),
        make_row("18", [0.45, 0.47], Difference(0.05, 0.02, 0.08, 0.01)),
        make_row("24", [0.60, 0.62], Difference(0.2, 0.15, 0.25, 0.01)),
    ]
    assert findings(rows, missing=0) == [
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
    assert findings(rows, 0)[1:] == ["Within noise of the baseline: “12”, “18”."]


def test_what_is_not_known_is_said(make_row):
    rows = [make_row("6", [0.4]), make_row("12", [0.5], Difference(0.1, None, None, None))]
    said = findings(rows, missing=3)
    assert said[1] == "“12” is better, noise unknown: +10.00 points."
    assert "one seed only" in said[2]
    assert "no intervals over images" in said[3]
    assert said[4:] == ["3 trials are not done yet and left out."]
    assert findings(rows, missing=1)[-1] == "1 trial is not done yet and left out."


def test_another_setting_is_not_taken_for_the_baseline(make_row):
    rows = [make_row("12", [0.5, 0.6], setting=1), make_row("18", [0.5, 0.6], setting=2)]
    said = findings(rows, missing=2)
    assert said[0] == "The baseline is not done yet, so nothing is compared."
    assert not any("12" in line for line in said)
