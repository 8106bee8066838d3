import pytest
import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from deeplab_lit.ablate.dashboard import build_dashboard, save_dashboard
from deeplab_lit.ablate.sweep import SweepError


@pytest.fixture
def dashboard(sweep):
    return build_dashboard(sweep, "me", "deeplab_lit")


def test_runs_are_those_of_the_ablation_grouped_by_setting_and_best_first(dashboard):
    runs = dashboard.runset_settings
    assert "Group" in str(runs.filters)
    assert "'rates'" in str(runs.filters)
    assert [group.name for group in runs.groupby] == ["model.atrous_rates"]
    assert [(o.item.name, o.ascending) for o in runs.order] == [("val/miou.max", False)]
    assert "summary:val/miou.max" in runs.pinned_columns
    assert isinstance(runs.groupby[0], ws.Config)


def test_panels_show_what_fit_logs(dashboard):
    panels = [panel for section in dashboard.sections for panel in section.panels]
    lines = {str(name) for p in panels if isinstance(p, wr.LinePlot) for name in p.y or []}
    logged = {"val/miou", "train/loss", "train/images_per_second", "train/memory_gib"}
    assert all(any(name in line for line in lines) for name in logged)
    (media,) = [p for p in panels if isinstance(p, wr.MediaBrowser)]
    assert media.media_keys == ["val/images"]


def test_who_is_not_logged_in_is_told_what_to_do(sweep, tmp_path, monkeypatch):
    for key in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb.teardown()
    with pytest.raises(SweepError, match="wandb login"):
        save_dashboard(sweep, None)
    wandb.teardown()
