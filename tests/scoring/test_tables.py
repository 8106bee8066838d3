from deeplab_lit.scoring.tables import score_table

SCORES = {
    "miou": 0.375,
    "pixel_accuracy": 0.75,
    "mean_accuracy": 0.625,
    "fw_iou": 0.5,
    "iou": {"sky": 0.5, "tree": 0.25, "bird": None},
}


def test_the_table_is_in_percent_with_a_dash_for_what_is_absent():
    lines = [line.split() for line in score_table(SCORES).splitlines()]
    assert lines[:3] == [["sky", "50.00"], ["tree", "25.00"], ["bird", "–"]]
    assert lines[4:] == [
        ["mIoU", "37.50", "over", "2", "of", "3", "classes"],
        ["pixel", "accuracy", "75.00"],
        ["mean", "accuracy", "62.50"],
        ["fw", "iou", "50.00"],
    ]


def test_a_mean_over_fewer_classes_says_over_how_many():
    scores = {"iou": {"sky": 0.5, "road": 0.7, "car": None}, "miou": 0.6}
    scores |= {"pixel_accuracy": 0.9, "mean_accuracy": 0.6, "fw_iou": 0.8}
    line = next(line for line in score_table(scores).splitlines() if "mIoU" in line)
    assert line.endswith("60.00  over 2 of 3 classes")
    scores["crf"] = scores | {"miou": 0.7}
    line = next(line for line in score_table(scores).splitlines() if "mIoU" in line)
    assert line.endswith("70.00  +10.00  over 2 of 3 classes")
    scores["iou"] = {"sky": 0.5, "road": 0.7, "car": 0.0}
    assert "over" not in score_table(scores)


def test_the_table_shows_before_after_and_gain():
    before = {"miou": 0.5, "pixel_accuracy": 0.9, "mean_accuracy": 0.5, "fw_iou": 0.25}
    after = before | {"miou": 0.625, "iou": {"sky": 0.5, "tram": None}}
    scores = before | {"iou": {"sky": 0.75, "tram": None}, "crf": after}
    lines = [line.split() for line in score_table(scores).splitlines()]
    assert lines[0] == ["before", "after", "gain"]
    assert lines[1] == ["sky", "75.00", "50.00", "-25.00"]
    assert lines[2] == ["tram", "–", "–", "–"]
    assert lines[4] == ["mIoU", "50.00", "62.50", "+12.50", "over", "1", "of", "2", "classes"]


def test_metrics_of_ones_own_come_last_as_they_are():
    scores = SCORES | {"metrics": {"boundary_f1": 0.71234, "nothing": None}}
    lines = [line.split() for line in score_table(scores).splitlines()]
    assert lines[-2:] == [["boundary_f1", "0.7123"], ["nothing", "–"]]
