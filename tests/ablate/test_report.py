import pytest

from deeplab_lit.ablate.plan import plan
from deeplab_lit.ablate.report import short, write_report
from deeplab_lit.ablate.sweep import read_sweep


def test_the_report_is_four_files_and_the_table_on_the_screen(sweep, done, tmp_path, capsys):
    folder = tmp_path / "runs/rates"
    write_report(sweep, done, folder)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names == {"table.md", "table.csv", "plot.png", "report.html"}
    page = (folder / "report.html").read_text()
    assert "Which rate?" in page
    assert "“2, 4” is better" in page
    # 4 images, each with truth and 2 predictions
    assert page.count("data:image/png") == 4 * 4
    said = capsys.readouterr().out
    assert (folder / "table.md").read_text() in said
    assert str(folder / "report.html") in said


def test_part_of_an_ablation_can_be_reported(sweep, runs, make_run, tmp_path, capsys):
    make_run(runs[0], 0.5)
    write_report(sweep, runs, tmp_path / "runs/rates")
    assert "3 runs are not done yet" in capsys.readouterr().out
    text = (tmp_path / "runs/rates/report.html").read_text()
    assert "3 runs are not done yet" in text


def test_nothing_done_is_said(sweep, runs, tmp_path, capsys):
    write_report(sweep, runs, tmp_path)
    assert capsys.readouterr().err.startswith("Nothing to report yet: no run is done.\n")
    assert not list(tmp_path.glob("*.html"))


def test_runs_of_other_options_are_not_passed_over_in_silence(sweep, done, tmp_path, capsys):
    """Trainings with their validations without the CRF, and now with it asked for."""
    folder = tmp_path / "runs/rates"
    write_report(sweep, plan(sweep, folder, crf=True), folder)
    said = capsys.readouterr().err
    assert "Nothing to report yet" in said
    assert "the same --crf, --seeds and options with a dot" in said
    assert not (folder / "report.html").exists()


def test_where_the_data_is_gone_the_report_says_so(sweep, done, tmp_path):
    for run in done:
        config = run.validate.folder / "config.yaml"
        config.write_text("{data: {class_path: VOC, init_args: {root: /n}}, eval: {}, crf: {}}")
    write_report(sweep, done, tmp_path / "runs/rates")
    assert "No pictures: " in (tmp_path / "runs/rates/report.html").read_text()


@pytest.mark.parametrize(
    ("metric", "expected"), [("val/miou", "+0.00"), ("val_crf/miou", "+10.00")]
)
def test_the_metric_says_whether_settings_are_compared_after_the_crf(
    sweep_file, make_run, tmp_path, metric, expected
):
    parameters = {"crf.bi_w": {"values": [3, 4]}}
    sweep = read_sweep(sweep_file(parameters=parameters, metric={"name": metric}))
    folder = tmp_path / "runs/rates"
    runs = plan(sweep, folder)
    for run, crf in zip(runs, (0.6, 0.7), strict=True):
        make_run(run, 0.5, crf=crf)
    write_report(sweep, runs, folder)
    assert f"| {expected}" in (folder / "table.md").read_text()


def test_labels_are_short_where_one_option_varies():
    assert short(["rates 1", "rates 2, 4"]) == ("rates", ["1", "2, 4"])
    several = ["head x; lr 1", "head y; lr 1"]
    assert short(several) == ("setting", several)


def test_the_option_that_varies_heads_the_table(sweep, done, tmp_path):
    folder = tmp_path / "runs/rates"
    write_report(sweep, done, folder)
    assert (folder / "table.md").read_text().startswith("| atrous_rates | seeds |")
    page = (folder / "report.html").read_text()
    assert page.count("<th>atrous_rates</th>") == 2  # scores, classes
    assert "<th>atrous_rates 2, 4</th>" in page  # pictures
