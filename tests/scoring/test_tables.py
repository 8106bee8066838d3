from deeplab_lit.scoring.tables import table

SCORES = {
    "miou": 0.375,
    "pixel_accuracy": 0.75,
    "mean_accuracy": 0.625,
    "fw_iou": 0.5,
    "iou": {"sky": 0.5, "tree": 0.25, "bird": None},
}


def test_the_table_is_in_percent_with_a_dash_for_what_is_absent():
    lines = [line.split() for line in table(SCORES).splitlines()]
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
    line = next(line for line in table(scores).splitlines() if "mIoU" in line)
    assert line.endswith("60.00  over 2 of 3 classes")
    scores["crf"] = scores | {"miou": 0.7}
    line = next(line for line in table(scores).splitlines() if "mIoU" in line)
    assert line.endswith("70.00  +10.00  over 2 of 3 classes")
    scores["iou"] = {"sky": 0.5, "road": 0.7, "car": 0.0}
    assert "over" not in table(scores)
