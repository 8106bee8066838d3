import csv
import json
import shlex
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import deeplab_lit
from deeplab_lit import tune_crf, validate
from deeplab_lit.ablate.bootstrap import interval
from deeplab_lit.crf import search as crf_search
from deeplab_lit.crf.parameters import PRESETS
from deeplab_lit.crf.search import Point
from deeplab_lit.data import Shapes
from deeplab_lit.data.shapes import draw_sample
from deeplab_lit.scoring.probability_cache import CachedProbabilities
from deeplab_lit.tune_crf import main


@pytest.fixture
def few(monkeypatch):
    """A grid of four settings."""
    monkeypatch.setattr(crf_search, "COARSE", ((3.0, 4.0), (30.0, 50.0), (20.0,)))
    monkeypatch.setattr(crf_search, "fine", lambda best: [best])


def tune(trained, out, **options):
    flags = [f"--{key}={value}" for key, value in options.items()]
    main([f"--ckpt_path={trained}", f"--out={out}", "--backend=torch", "--iterations=2", *flags])


@pytest.mark.usefixtures("full_charts")
def test_the_best_of_the_grid_is_found_written_and_usable(trained, tmp_path, few, capsys):
    out = tmp_path / "search"
    tune(trained, out, num_images=2)
    with (out / "scores.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert len(rows) == 4
    best = max(rows, key=lambda row: row["miou"])
    found = yaml.safe_load((out / "best.yaml").read_text())
    shown = capsys.readouterr().out
    assert "2 images of train, mIoU without" in shown
    if "best.yaml: the best of the grid" in shown:
        assert {k: found[k] for k in Point._fields} == {k: best[k] for k in Point._fields}
    else:
        assert {k: found[k] for k in PRESETS["resnet101"]} == PRESETS["resnet101"]
    following = shlex.split(shown.splitlines()[-1])[3:]
    best_file = str(out / "best.yaml")
    words = ["--ckpt_path", str(trained), "--crf", best_file]
    assert following == ["deeplab_lit.validate", *words]
    assert Image.open(out / "scores.png").size[0] > 500
    id = deeplab_lit.data.Shapes(train_size=8).split("train").ids[0]
    image, _ = draw_sample(0, 0)
    cached = CachedProbabilities(out / "probabilities", 7).read(id, image).numpy()
    with torch.no_grad():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        expected = deeplab_lit.load(trained)(pixels)[0].softmax(0).numpy()
    np.testing.assert_allclose(cached, expected, rtol=2**-10, atol=2e-5)
    done = validate.main([*following[1:], f"--runs_dir={tmp_path / 'runs'}"])
    used = json.loads((done.folder / "results.json").read_text())["final"]["crf"]
    assert {k: used[k] for k in found} == found


def test_a_search_that_was_stopped_goes_on(trained, tmp_path, few, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tune(trained, whole, num_images=2)
    scored = []

    class Stops(tune_crf.Score):
        def __call__(self, point):
            if len(scored) == 2:
                raise KeyboardInterrupt
            scored.append(point)
            return super().__call__(point)

    with monkeypatch.context() as patch:
        patch.setattr(tune_crf, "Score", Stops)
        with pytest.raises(SystemExit) as stop:
            tune(trained, parts, num_images=2)
    assert stop.value.code == 130
    assert len((parts / "scores.csv").read_text().splitlines()) == 3  # a header and two settings
    tune(trained, parts, num_images=2)
    assert (parts / "scores.csv").read_text() == (whole / "scores.csv").read_text()


def test_a_line_cut_short_in_the_scores_is_searched_again(trained, tmp_path, few):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        tune(trained, out, num_images=1)
    scores = (whole / "scores.csv").read_text()
    for end in (len(scores) - 3, len(scores.splitlines()[0]) + 2, 5):
        (cut / "scores.csv").write_text(scores[:end])
        tune(trained, cut, num_images=1)
        assert (cut / "scores.csv").read_text() == scores


def test_a_folder_of_other_weights_or_other_images_is_refused(trained, tmp_path, few, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained.parents[1], run)
    checkpoint, out = run / "checkpoints/best.ckpt", tmp_path / "out"
    tune(checkpoint, out, num_images=1)
    with pytest.raises(SystemExit):
        tune(checkpoint, out, num_images=1, **{"data.draw_seed": 7})
    assert "other settings (data, images_and_masks in" in capsys.readouterr().err
    content = torch.load(checkpoint, weights_only=True)
    content["global_step"] += 1
    torch.save(content, checkpoint)
    with pytest.raises(SystemExit):
        tune(checkpoint, out, num_images=1)
    assert "other settings (checkpoint_sha256 in" in capsys.readouterr().err


def test_network_and_torch_crf_run_on_the_device(trained, tmp_path, few, monkeypatch):
    """On "meta", torch's device without memory, which stands in for a GPU."""
    used = set()

    class Net:
        classes, preprocess = Shapes.classes, SimpleNamespace(mean=torch.zeros(3))
        backbone_name = "resnet101"

        def to(self, device):
            self.preprocess.mean = self.preprocess.mean.to(device)
            return self

        def __call__(self, images):
            used.add(("network", images.device.type))
            return torch.zeros(1, 7, *images.shape[-2:])  # a meta tensor has no numbers to keep

    def refine(self, image, probabilities):
        used.add(("CRF", probabilities.device.type))
        return torch.zeros(probabilities.shape)

    monkeypatch.setattr(deeplab_lit, "load", lambda path: Net())
    monkeypatch.setattr(tune_crf.DenseCRF, "__call__", refine)
    tune(trained, tmp_path / "out", num_images=2, device="meta")
    assert used == {("network", "meta"), ("CRF", "meta")}
    used.clear()
    tune(trained, tmp_path / "cpu", num_images=2, device="meta", backend="native")
    assert used == {("network", "meta"), ("CRF", "cpu")}


def counts_of(accuracies):
    """Counts (N,3,2) of images of two classes, each with half of 100 pixels, so right."""
    rows = [[[50 * a, 50 * a], [50, 50], [50, 50]] for a in accuracies]
    return np.array(rows).astype(np.int64)


@pytest.fixture
def scored(monkeypatch):
    """Lets settings score as wanted: scored(alone, grid, released), a share of hits an image."""

    def score(alone, grid, released):
        def counts(self, parameters):
            if parameters is None:
                return counts_of(alone)
            return counts_of(released if parameters["pos_xy_std"] == 1 else grid)

        monkeypatch.setattr(tune_crf.Score, "counts", counts)

    return score


def test_on_few_images_no_verdict_goes_beyond_them(trained, tmp_path, few, scored, capsys):
    scored([0.6] * 6, [0.5] * 6, [0.58] * 6)
    tune(trained, tmp_path / "out", num_images=6)
    shown = capsys.readouterr().out
    assert "leave" not in shown
    assert "the best of the grid: harms on 6 images, too few to say so of others" in shown
    assert "6 images: few for a choice" in shown


def test_where_images_disagree_they_cannot_tell(trained, tmp_path, few, scored, capsys):
    scored([0.6] * 6, [0.3, 0.8, 0.2, 0.9, 0.5, 0.6], [0.5, 0.8, 0.5, 0.7, 0.6, 0.6])
    tune(trained, tmp_path / "out", num_images=6)
    shown = capsys.readouterr().out
    assert shown.count("the interval contains 0, so 6 images cannot tell whether it helps") == 2


def test_released_parameters_are_always_compared_and_win_where_they_are_better(
    trained, tmp_path, few, scored, capsys
):
    scored([0.6] * 6, [0.5] * 6, [0.8] * 6)
    tune(trained, tmp_path / "out", num_images=6)
    assert "released (resnet101): helps on 6 images" in capsys.readouterr().out
    found = yaml.safe_load((tmp_path / "out/best.yaml").read_text())
    assert {k: found[k] for k in PRESETS["resnet101"]} == PRESETS["resnet101"]
    assert found["iterations"] == 2


def test_intervals_are_the_paired_bootstraps_of_the_report(trained, tmp_path, few, scored, capsys):
    alone, grid = [0.6, 0.5, 0.7], [0.66, 0.54, 0.81]
    scored(alone, grid, alone)
    tune(trained, tmp_path / "out", num_images=3)
    low, high = interval([counts_of(grid)], [counts_of(alone)])
    assert f"({100 * low:+.2f} … {100 * high:+.2f})" in capsys.readouterr().out


def test_images_that_are_all_void_are_refused(trained, tmp_path, few, scored, capsys):
    scored([0] * 2, [0] * 2, [0] * 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_crf, "miou", lambda counts: np.nan)
        with pytest.raises(SystemExit):
            tune(trained, tmp_path / "out", num_images=2)
    assert "all of their pixels are void" in capsys.readouterr().err


def test_scores_of_images_that_were_replaced_are_not_gone_on_with(trained, tmp_path, few, capsys):
    tune(trained, tmp_path / "out", num_images=1)
    drawn = draw_sample(0, 0)
    with pytest.MonkeyPatch.context() as patch:
        other = (255 - drawn[0], drawn[1])
        patch.setattr("deeplab_lit.data.shapes.draw_sample", lambda *args, **options: other)
        with pytest.raises(SystemExit) as stop:
            tune(trained, tmp_path / "out", num_images=1)
    assert stop.value.code == 2
    assert "other settings (images_and_masks in" in capsys.readouterr().err


def test_damaged_probabilities_are_computed_anew_and_kept_ones_are_told(
    trained, tmp_path, few, capsys
):
    out = tmp_path / "out"
    tune(trained, out, num_images=2)
    scores = (out / "scores.csv").read_text()
    damaged = sorted((out / "probabilities").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    (out / "scores.csv").unlink()
    capsys.readouterr()
    tune(trained, out, num_images=2)
    assert (out / "scores.csv").read_text() == scores
    assert "(the probabilities of 1 were kept)" in capsys.readouterr().out


def test_data_with_the_classes_in_another_order_are_refused(trained, tmp_path, few, capsys):
    names = list(Shapes.classes)
    names[1], names[2] = names[2], names[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shapes, "classes", {name: Shapes.classes[name] for name in names})
        with pytest.raises(SystemExit) as stop:
            tune(trained, tmp_path / "out", num_images=1)
    assert stop.value.code == 2
    assert f"1: {names[2]} → {names[1]}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_searching_on_val_is_warned_of(trained, tmp_path, few, capsys):
    tune(trained, tmp_path / "out", num_images=1, split="val")
    assert "WARNING: searching on val" in capsys.readouterr().out


def test_a_list_keeps_the_search_to_the_images_trained_on(trained, tmp_path, few, capsys):
    (tmp_path / "labeled.txt").write_text("1\n2\n")
    options = {"data": "Shapes", "data.train_size": 8, "data.ids": tmp_path / "labeled.txt"}
    tune(trained, tmp_path / "out", **options)
    assert f"2 images of train, ids {tmp_path.name}/labeled.txt" in capsys.readouterr().out
    assert len(list((tmp_path / "out/probabilities").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "nothing"}, "no split 'nothing'"),
        ({"pos_xy_std": -1}, "pos_xy_std"),
        ({"device": "toaster"}, "--device toaster"),
        ({"data.max_disc": 500}, "error: --data.max_disc must be in"),
        ({"out": "{file}"}, "holds something else"),
        ({"out": "{file}/x"}, "cannot be made"),
        ({"ckpt_path": "{file}"}, "file: not a weight file"),
        ({"ckpt_path": "nowhere"}, "nowhere: no such file"),
    ],
)
def test_mistakes_get_a_sentence(trained, tmp_path, capsys, options, words):
    (tmp_path / "file").write_text("mine")
    options = {k: str(v).format(file=tmp_path / "file") for k, v in options.items()}
    out = options.pop("out", tmp_path / "out")
    if "ckpt_path" in options:
        options["data"] = "Shapes"
    with pytest.raises(SystemExit) as stop:
        tune(options.pop("ckpt_path", trained), out, **options)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_a_checkpoint_outside_its_run_needs_data(trained, tmp_path, capsys):
    lone = tmp_path / "lone.ckpt"
    shutil.copy(trained, lone)
    with pytest.raises(SystemExit) as stop:
        tune(lone, tmp_path / "out")
    assert stop.value.code == 2
    assert "--data is missing" in capsys.readouterr().err
