from deeplab_lit.training.score_table import table

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
        ["mIoU", "37.50"],
        ["pixel", "accuracy", "75.00"],
        ["mean", "accuracy", "62.50"],
        ["fw", "iou", "50.00"],
    ]
