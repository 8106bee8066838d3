from deeplab_lit.cli.score_tables import score_table

TABLE_SCORES = {
    "miou": 0.375,
    "pixel_accuracy": 0.75,
    "mean_accuracy": 0.625,
    "fw_iou": 0.5,
    "iou": {"sky": 0.5, "tree": 0.25, "bird": None},
}


def test_the_table_is_in_percent_with_a_dash_for_what_is_absent():
    lines = [line.split() for line in score_table(TABLE_SCORES).splitlines()]
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
    scores = TABLE_SCORES | {"metrics": {"boundary_f1": 0.71234, "nothing": None}}
    lines = [line.split() for line in score_table(scores).splitlines()]
    assert lines[-2:] == [["boundary_f1", "0.7123"], ["nothing", "–"]]


SUBSETS = {
    "miou": 0.5,
    "miou3": 0.6,
    "miou2": 0.75,
    "pixel_accuracy": 0.75,
    "mean_accuracy": 0.625,
    "fw_iou": 0.5,
    "iou": {"sky": 0.5, "tree": 0.75, "bird": None, "cow": 0.25},
    "subsets": {
        "rule": "rows",
        "iou": {"3": {"sky": 0.5, "tree": 0.75, "bird": None}, "2": {"sky": 0.5, "tree": 0.75}},
    },
}


def test_subsets_stand_below_the_mean_of_all_with_what_they_leave_out_and_the_rule():
    lines = [line.strip() for line in score_table(SUBSETS).splitlines()]
    totals = [" ".join(line.split()) for line in lines[5:9]]
    assert totals[:2] == ["mIoU 50.00 over 3 of 4 classes", "mIoU3 60.00 over 2 of 3 classes"]
    assert totals[2:] == ["mIoU2 75.00", "pixel accuracy 75.00"]
    assert lines[-3:-1] == ["mIoU3 is without cow", "mIoU2 is without bird, cow"]
    assert lines[-1] == (
        "by --eval.subsets rows: a pixel of cow counts against the class that it is taken for"
    )
    scores = SUBSETS | {"subsets": SUBSETS["subsets"] | {"rule": "pixels"}}
    assert score_table(scores).endswith("by --eval.subsets pixels: pixels of cow count nowhere")


def test_subsets_after_the_crf_have_their_gain():
    scores = SUBSETS | {"crf": SUBSETS | {"miou3": 0.65}}
    line = next(line for line in score_table(scores).splitlines() if "mIoU3" in line)
    assert line.split()[:4] == ["mIoU3", "60.00", "65.00", "+5.00"]
