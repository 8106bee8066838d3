import math
from dataclasses import replace

import numpy as np
import pytest

from deeplab_lit.ablate.bootstrap import Difference, compare
from deeplab_lit.ablate.process import log_of
from deeplab_lit.ablate.results import read_results
from deeplab_lit.ablate.table import rows
from deeplab_lit.ablate.words import findings, left_out, origin

LABELS = ["1", "2, 4"]


def test_the_baseline_comes_first_then_the_others_from_best_to_worst(make_row):
    table = [
        make_row("6", [0.40, 0.42]),
        make_row("12", [0.30, 0.32], Difference(-0.1, -0.15, -0.05, 0.01)),
        make_row("18", [0.45, 0.47], Difference(0.05, 0.02, 0.08, 0.01)),
        make_row("24", [0.60, 0.62], Difference(0.2, 0.15, 0.25, 0.01)),
    ]
    assert findings(table) == [
        "The baseline, “6”, has mIoU 41.00 ± 1.41 %.",
        "“24” is better: +20.00 [+15.00, +25.00] points.",
        "“18” is better: +5.00 [+2.00, +8.00] points.",
        "“12” is worse: -10.00 [-15.00, -5.00] points.",
    ]


def test_what_noise_explains_is_listed_apart(make_row):
    table = [
        make_row("6", [0.40, 0.42]),
        make_row("12", [0.42, 0.44], Difference(0.02, -0.01, 0.05, 0.01)),
        make_row("18", [0.42, 0.44], Difference(0.02, 0.01, 0.03, 0.4)),
    ]
    assert findings(table)[1:] == [
        "Within noise of the baseline: “12”, “18”.",
        "Two seeds tell only large differences from noise: “within noise” is not “equal”.",
    ]
    three = [
        make_row("6", [0.40, 0.41, 0.42]),
        make_row("12", [0.4, 0.41, 0.45], table[2].difference),
    ]
    assert len(findings(three)) == 2


def test_what_is_not_known_is_said(make_row):
    table = [
        make_row("6", [0.4]),
        make_row("12", [0.5], Difference(0.1, None, None, None)),
        make_row("18", [0.6], Difference(0.2, 0.1, 0.3, None)),
        make_row("24", [0.6, 0.7], Difference(0.2, None, None, 0.01)),
    ]
    said = findings(table)
    assert said[1] == (
        "Unknown, one seed: “12” (+10.00 points), “18” (+20.00 [+10.00, +30.00] points)."
    )
    assert said[2] == "Unknown, no counts of the same images: “24” (+20.00 points)."
    assert said[3].startswith("Some settings have one seed only: ")
    assert "no interval over images for “12”, “24”: " in said[4]
    assert len(said) == 5


def test_one_seed_gives_no_verdict_however_the_images_differ(make_row):
    """Neither better where the interval is far from zero nor noise where it contains zero."""
    table = [
        make_row("6", [0.4]),
        make_row("12", [0.5], Difference(0.1, 0.05, 0.15, None)),
        make_row("18", [0.4], Difference(0.0, -0.01, 0.01, None)),
    ]
    said = findings(table)
    assert said[1] == (
        "Unknown, one seed: “12” (+10.00 [+5.00, +15.00] points), "
        "“18” (+0.00 [-1.00, +1.00] points)."
    )
    assert said[2].startswith("All settings have one seed only: how much another seed would change")
    assert len(said) == 3


def test_few_images_are_counted(make_row):
    table = [make_row("6", [0.4, 0.5, 0.6])]
    for number, expected in ((6, 1), (30, 0)):
        for result in table[0].results:
            result.images["ids"] = np.arange(number).astype(str)
        said = [line for line in findings(table) if "validation image" in line]
        assert len(said) == expected
        assert all("of 6 validation images: " in line for line in said)


def test_a_baseline_whose_score_is_not_known_is_said(make_row):
    table = [make_row("6", [None, 0.4]), make_row("12", [0.5, 0.6], compare([math.nan], [0.5]))]
    assert findings(table)[:2] == [
        "The baseline, “6”, has a score that is not known.",
        "Unknown, a score is missing: “12” (– points).",
    ]
    assert len(findings(table)) == 2  # nothing on images, whose counts may well be there


def test_scores_over_other_classes_are_not_compared(make_row):
    first = make_row("6", [0.4, 0.5]).results
    second = make_row("12", [0.8, 0.9], setting=1, iou={"disc": 0.8, "eye": 0.9}).results
    made = rows([*first, *second], ["6", "12"], after_crf=False)
    assert findings(made)[1] == "Unknown, other classes: “12” (– points)."


def test_another_setting_is_not_taken_for_the_baseline(make_row):
    table = [make_row("12", [0.5, 0.6], setting=1), make_row("18", [0.5, 0.6], setting=2)]
    said = findings(table)
    assert said[0] == "The baseline has no result, so nothing is compared."
    assert not any("12" in line for line in said)


def test_a_mean_over_fewer_classes_is_said(make_row):
    assert not [line for line in findings([make_row("6", [0.4, 0.5])]) if "mean over" in line]
    iou = {"sky": 0.4, "road": 0.4, "car": None}
    said = findings([make_row("6", [0.4, 0.4], iou=iou)])
    assert [line for line in said if line.startswith("mIoU is the mean over 2 of 3 classes: ")]


def said(runs):
    return left_out(runs, *read_results(runs), LABELS)


def log(step, text):
    log_of(step).parent.mkdir(parents=True, exist_ok=True)
    log_of(step).write_text(text)


def test_of_a_whole_ablation_nothing_is_left_out(done):
    assert said(done) == []


def test_runs_that_are_not_done_are_counted(runs, make_run):
    make_run(runs[0], 0.5)
    assert said(runs) == ["3 runs are not done yet and left out."]
    make_run(runs[1], 0.5)
    make_run(runs[2], 0.5)
    assert said(runs) == ["1 run is not done yet and left out."]


def test_what_failed_is_named_with_what_it_said(runs, make_run):
    make_run(runs[0], 0.5)
    for run in (runs[1], runs[3]):
        log(run.fit, "$ python -m …\nerror: the loss is nan\nfailed: the loss is nan\n")
    log(runs[2].fit, "$ python -m …\nerror: the loss is nan\n")  # it was begun again since
    assert said(runs) == [
        "Left out: “2, 4”, seed 0; “2, 4”, seed 1: its training failed: the loss is nan.",
        "1 run is not done yet and left out.",
    ]


def test_a_failed_validation_is_named_too(done):
    (done[2].validate.folder / "results.json").unlink()
    log(done[2].validate, "$ python -m …\nfailed: no such data\n")
    assert said(done) == ["Left out: “1”, seed 1: its validation failed: no such data."]


def test_damaged_files_are_named(done):
    path = done[1].validate.folder / "images.npz"
    path.write_bytes(path.read_bytes()[:50])
    (line,) = said(done)
    assert line.startswith(f"Left out: “2, 4”, seed 0: {path} is damaged: ")
    assert line.endswith(f"; delete {path.parent} to have it made again.")
    (done[0].fit.folder / "metrics.csv").write_text("?\n1\n")
    assert said(done)[0].endswith(f"; delete {done[0].fit.folder}* to have it made again.")


@pytest.fixture
def table(make_row):
    return [make_row("a", [0.5, 0.6]), make_row("b", [0.5, 0.6])]


def test_versions_commit_and_device_are_named_once(table):
    assert origin(table) == "torch 2.5; commit unknown; on a <fast> GPU."


def test_what_differs_between_runs_is_listed_and_said(table):
    fit = table[1].results[1].fit
    fit |= {"versions": {"torch": "2.6"}, "git_commit": "abc"}
    other = {"versions": {"torch": "2.5"}, "git_commit": "def+", "device": "cpu, 4 threads"}
    table[0].results[0] = replace(table[0].results[0], validation=other)
    assert origin(table) == (
        "torch 2.5 / torch 2.6; commit unknown, def+, abc; on a <fast> GPU and cpu, 4 threads. "
        "Not all runs were made alike: 2 versions, 3 commits, 2 devices."
    )


def test_the_steps_are_those_that_were_trained(table):
    for row, steps in zip(table, (40, 1200), strict=True):
        for result in row.results:
            result.fit["steps"] = steps
    assert "on a <fast> GPU. Trained for 40 or 1,200 optimizer steps." in origin(table)
