"""The report on W&B: as an object, and as a server gets it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import wandb
import wandb_workspaces.reports.v2 as wr

from deeplab_lit.ablate.__main__ import main
from deeplab_lit.ablate.report import page, summarize
from deeplab_lit.ablate.table import markdown
from deeplab_lit.ablate.wandb_report import build_report, class_frequencies
from deeplab_lit.ablate.words import findings


def texts(report):
    """What it says, block by block; of lists each item."""
    for block in report.blocks:
        yield from block.items if isinstance(block, wr.UnorderedList) else []
        yield getattr(block, "text", None) or getattr(block, "code", "")


def test_it_says_what_report_html_says(sweep, done):
    table, absent = summarize(sweep, done)
    said = list(texts(build_report(sweep, "me", "p", done, ["python", "-m", "x", "a b"])))
    assert "Which rate?" in said
    assert {"atrous_rates 1", "atrous_rates 2, 4"} <= set(said)
    assert "python -m x 'a b'" in said
    assert markdown(table) in said
    text = " ".join(page(sweep, table, absent, None, "").split())
    for sentence in findings(table):
        assert sentence in said
        assert sentence in text
    (note,) = [words for words in said if words.startswith("mIoU is the mean intersection")]
    assert note in text


def test_class_frequencies_are_those_of_the_validation_images(sweep, done):
    """Four images of a hundred pixels of each class, one without the last class."""
    folder = done[0].validate.folder
    true = np.full((4, 7), 100)
    true[0, 6] = 0
    counts = np.stack([np.minimum(50, true), true, true], axis=1)
    np.savez(folder / "images.npz", ids=np.arange(4).astype(str), counts=counts)
    frequencies = class_frequencies(summarize(sweep, done)[0])
    assert frequencies["disc"] == pytest.approx((400 / 2700, 1))
    assert frequencies["eye"] == pytest.approx((300 / 2700, 3 / 4))
    assert "| eye | 11.11 | 75.0 |" in "\n".join(texts(build_report(sweep, "me", "p", done)))


@pytest.mark.parametrize("some", [False, True])
def test_without_results_here_the_panels_are_there_all_the_same(sweep, runs, some):
    report = build_report(sweep, "me", "p", runs if some else ())
    assert any("No run is done" in words for words in texts(report))
    assert ("4 runs are not done yet and left out." in texts(report)) == some
    grids = [block for block in report.blocks if isinstance(block, wr.PanelGrid)]
    names = [grid.runsets[0].name for grid in grids]
    assert names == ["Validations", "Validations", "Validations", "Trainings"]
    assert [type(panel) for grid in grids[1:3] for panel in grid.panels] == [
        wr.MediaBrowser,
        wr.WeavePanelSummaryTable,
    ]


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A stand-in for W&B's server, which keeps the views that it is asked to make."""
    views = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            query, values = body.get("query", ""), body.get("variables") or {}
            project = {"id": "1", "name": "deeplab_lit", "entityName": "me", "internalId": "2"}
            node = project | {"createdAt": "2026-01-01", "isBenchmark": False, "user": None}
            pages = {"endCursor": None, "hasNextPage": False}
            data = {
                "viewer": {"id": "3", "entity": "me", "username": "me", "flags": "{}"},
                "project": project,
                "models": {"edges": [{"node": node, "cursor": ""}], "pageInfo": pages},
            }
            if "upsertView" in query:
                views.append(values)
                view = values | {"id": f"view{len(views)}", "project": project}
                data = {"upsertView": {"view": view, "inserted": True}}
            content = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args): ...

    for name, value in {"WANDB_API_KEY": "0" * 40, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{running.server_port}")
        threading.Thread(target=running.serve_forever, daemon=True).start()
        wandb.teardown()
        yield views
        wandb.teardown()
        running.shutdown()


def test_the_server_gets_two_views_and_the_draft_of_a_report(
    server, sweep_file, sweep, done, tmp_path, capsys
):
    """What a server makes of them is not known here: no test has one of W&B's."""
    main([str(sweep_file()), "--dashboard", f"--runs_dir={tmp_path / 'runs'}"])
    titles = [f"Ablation rates{end}" for end in (": scores", ": trainings", "")]
    assert [view["displayName"] for view in server] == titles
    assert [view["type"] for view in server] == ["project-view", "project-view", "runs/draft"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in lines] == [*titles[:2], "Ablation rates: report"]
    assert all("/me/deeplab_lit" in line for line in lines)
    *views, report = [json.loads(view["spec"]) for view in server]
    for view in views:
        colors = view["section"]["customRunColors"]
        assert len(colors) == 10  # of two groups, and of four runs twice
        assert set(colors.values()) == {"#1f77b4", "#ff7f0e"}
    text = json.dumps(report, ensure_ascii=False)
    assert '"gridSettings": {"xAxis": "index", "yAxis": "run"}' in text
    assert "val/image_scores" in text
    assert findings(summarize(sweep, done)[0])[0] in text
    assert report["blocks"][-3]["children"][0]["text"] == "How it was made"
