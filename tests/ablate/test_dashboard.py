import re

import matplotlib.colors
import pytest
import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from deeplab_lit.ablate.dashboard import build_dashboards, save_dashboards
from deeplab_lit.ablate.plots import curves_plot
from deeplab_lit.ablate.sweep import SweepError, read_sweep
from deeplab_lit.runs.loggers import build_loggers


def views(sweep):
    return list(build_dashboards(sweep, "me", "deeplab_lit").values())


def test_scores_are_of_the_validations_and_curves_of_the_trainings(sweep):
    for view, job_type in zip(views(sweep), ("validate", "fit"), strict=True):
        runs = view.runset_settings
        for name, value in (("Group", "rates"), ("JobType", job_type)):
            assert re.search(rf"{name}.*'{value}'", str(runs.filters))
        assert [group.name for group in runs.groupby] == ["model.atrous_rates"]
        assert isinstance(runs.groupby[0], ws.Config)
    names = [[section.name for section in view.sections] for view in views(sweep)]
    assert names == [["Scores", "Predictions"], ["Scores", "Predictions", "Training"]]


@pytest.mark.parametrize("metric", ["val/miou", "val_crf/miou"])
def test_the_best_by_the_metric_of_the_file_comes_first(metric, sweep_file):
    for view in views(read_sweep(sweep_file(metric={"name": metric, "goal": "maximize"}))):
        runs = view.runset_settings
        first = runs.order[0]
        assert (first.item.name, first.ascending) == (f"{metric}.max", False)
        assert runs.pinned_columns[1] == f"summary:{metric}.max"
        bars = next(p for p in view.sections[0].panels if isinstance(p, wr.BarPlot))
        assert bars.metrics[0] == f"{metric}.max"


def test_the_confusion_matrix_is_the_chart_of_wandb_on_our_table(sweep):
    theirs = wandb.plot.confusion_matrix(y_true=[0], preds=[0], class_names=["a"]).spec
    theirs.key = "confusion"
    for view in views(sweep):
        panels = [panel for section in view.sections for panel in section.panels]
        (ours,) = [panel for panel in panels if isinstance(panel, wr.CustomChart)]
        assert ours.chart_name == theirs.spec_name
        assert ours.chart_fields.keys() == theirs.fields.keys()
        query = theirs.config_value["panel_config"]["userQuery"]["queryFields"][0]
        assert ours.query.keys() == {field["name"] for field in query["fields"]}


def test_images_and_runs_are_the_axes_of_one_grid(sweep):
    """As in the example of wandb-workspaces: an image a column, a run a row."""
    for view in views(sweep):
        panels = [panel for section in view.sections for panel in section.panels]
        (grid,) = [panel for panel in panels if isinstance(panel, wr.MediaBrowser)]
        assert (grid.media_keys, grid.gallery_axis) == (["val/images"], None)
        assert (grid.grid_x_axis, grid.grid_y_axis) == ("index", "run")
        (large,) = [section for section in view.sections if grid in section.panels]
        assert large.layout_settings.columns == 1


def test_a_setting_has_the_color_of_its_curve_in_the_report(sweep, runs, make_row):
    curves = [[(10, 0.5)]]
    rows = [make_row(str(i), [0.5], setting=i, curves=curves) for i in range(2)]
    lines = curves_plot(rows).axes[0].lines
    drawn = [matplotlib.colors.to_hex(line.get_color()) for line in lines]
    for view in build_dashboards(sweep, "me", "deeplab_lit", runs).values():
        colors = view.runset_settings.group_colors
        assert colors == {ws.GroupPath("[1]"): drawn[0], ws.GroupPath("[2,4]"): drawn[1]}
        by_run = {id: run.color for id, run in view.runset_settings.run_settings.items()}
        for run in runs:
            for step in (run.fit, run.validate):
                about = {"experiment": sweep.name, "job_type": step.verb, "resume_step": None}
                logger = build_loggers(step.folder, **about)[1]
                assert by_run.pop(logger.version) == drawn[run.setting]
        assert not by_run


def test_settings_of_several_options_are_told_apart_by_all_of_them(sweep_file):
    parameters = {"model.lr": {"values": [0.1, None]}, "model.head": {"values": ["aspp", "x y"]}}
    for view in views(read_sweep(sweep_file(parameters=parameters))):
        colors = view.runset_settings.group_colors
        paths = [("0.1", "aspp"), ("0.1", "x y"), ("null", "aspp"), ("null", "x y")]
        assert [tuple(path) for path in colors] == paths
        assert len(set(colors.values())) == 4


def test_who_is_not_logged_in_is_told_what_to_do(sweep, tmp_path, monkeypatch):
    for key in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb.teardown()
    with pytest.raises(SweepError, match="wandb login"):
        save_dashboards(sweep)
    wandb.teardown()
