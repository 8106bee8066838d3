"""Ablations on disk: sweep files, and runs as `fit` and `validate` leave them."""

import functools
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from deeplab_lit.ablate.panels import Branch, Panels, Sample
from deeplab_lit.ablate.plan import Run, Step, plan
from deeplab_lit.ablate.results import Result
from deeplab_lit.ablate.sweep import read_sweep
from deeplab_lit.ablate.table import Row
from deeplab_lit.training.module import DeepLabModule

CLASSES = ("background", "disc", "square", "triangle", "cross", "wire", "eye")
SWEEP = {
    "name": "rates",
    "description": "Which rate?",
    "method": "grid",
    "metric": {"name": "val/miou", "goal": "maximize"},
    "parameters": {
        "model.atrous_rates": {"values": [[1], [2, 4]]},
        "seed_everything": {"values": [0, 1]},
    },
    "command": ["${env}", "python", "-m", "deeplab_lit.fit", "--model.lr=0.1", "${args}"],
}


@pytest.fixture
def sweep_file(tmp_path):
    """Writes a sweep file: sweep_file(key=value or None to drop)."""

    def write(**changes):
        content = {k: v for k, v in (SWEEP | changes).items() if v is not None}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture
def sweep(sweep_file):
    return read_sweep(sweep_file())


@pytest.fixture
def runs(sweep, tmp_path):
    return plan(sweep, tmp_path / "runs/rates")


@functools.cache
def checkpoint(rates):
    """A best.ckpt of a small network with these rates."""
    module = DeepLabModule(
        {name: (i, i, i) for i, name in enumerate(CLASSES)},
        weights="none",
        backbone="resnet10_quarter",
        norm="batch",
        scales=(1.0,),
        atrous_rates=rates,
    )
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(content | {"global_step": 30}, file := io.BytesIO())
    return file.getvalue()


def write_run(run, miou, *, crf=None, hits=None):
    """What `fit` and `validate` leave of a run whose every class has IoU `miou`."""
    fit, validate = run.fit.folder, run.validate.folder
    scores = {"miou": miou, "iou": dict.fromkeys(CLASSES, miou)}
    refined = {"miou": crf, "iou": dict.fromkeys(CLASSES, crf)}
    final = scores if crf is None else scores | {"crf": refined}
    about = {"finished": True, "wall_seconds": 12.0, "device": "cpu, 1 threads"}
    about |= {"versions": {"torch": "2"}, "git_commit": "abc", "parameters": 1234}
    for folder, content in ((fit, {"best": scores}), (validate, {"final": final})):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(about | content))
    rows = ["step,train/images_per_second,train/loss,val/miou", "9,10,0.5,", "19,14,,0.2"]
    (fit / "metrics.csv").write_text("\n".join([*rows, f"29,90,0.4,{miou}"]) + "\n")
    if hits is not None:
        counts = np.stack([hits, np.full_like(hits, 100), np.full_like(hits, 100)], axis=1)
        np.savez(validate / "images.npz", ids=np.arange(len(hits)).astype(str), counts=counts)
    (fit / "checkpoints").mkdir(exist_ok=True)
    (fit / "checkpoints/best.ckpt").write_bytes(checkpoint((1,) if run.setting == 0 else (2, 4)))
    data = {"class_path": "deeplab_lit.data.Shapes", "init_args": {"val_size": 4}}
    config = {"data": data, "eval": {"scales": None}, "crf": None if crf is None else {}}
    (validate / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def make_run():
    return write_run


@pytest.fixture
def done(runs):
    """Every run is done: the second setting is better by 20 points, on every image."""
    for run in runs:
        miou = 0.5 + 0.2 * run.setting + 0.01 * run.seed
        hits = np.full((4, 7), 50 + 20 * run.setting)
        write_run(run, miou, crf=miou + 0.05, hits=hits)
    return runs


def hand_row(
    label, mious, difference=None, *, setting=0, crf=None, iou=None, curves=None, after_crf=False
):
    """A row of the table with these scores, one a seed; nothing of it is on disk."""
    results = []
    for seed, miou in enumerate(mious):
        scores = {"miou": miou, "iou": iou or {"disc": miou}}
        scores |= {} if crf is None else {"crf": {"miou": crf[seed], "iou": {"disc": crf[seed]}}}
        fit = {"wall_seconds": 30.0, "device": "a <fast> GPU", "versions": {"torch": "2.5"}}
        steps = (Step("fit", Path(f"a{setting}-{seed}"), ()), Step("validate", Path("b"), ()))
        curve = curves[seed] if curves else [(10, miou)]
        results.append(Result(Run(setting, seed, *steps), scores, fit, curve, 8.0, 1234, {}))
    return Row(label, results, difference, after_crf)


@pytest.fixture
def make_row():
    return hand_row


@pytest.fixture
def panels():
    """One image, of which the settings' predictions are background, disc, disc, background."""
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    truth = np.zeros((6, 8), np.uint8)
    truth[2, 3:5] = 1, 255
    masks = [np.full((6, 8), kind, np.uint8) for kind in (0, 1, 1, 0)]
    field = torch.full((6, 8), 1 / 48)
    atrous = Branch("rate 6", 6, 205, 31, field, 0.5)
    plain = Branch("1×1", None, 99, 21, field, None)
    pooling = Branch("image pooling", None, None, 121, field, None)
    branches = {"one": [plain, pooling], "two": [atrous], "three / four": [atrous]}
    colors = {"background": (0, 0, 0), "disc": (230, 60, 60)}
    grids = {"one": (5, 5), "two": (5, 5), "three / four": (3, 4)}
    return Panels(colors, [Sample("img1", image, truth, masks)], branches, grids)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes Python code (a text, or a file) run instead of `python -m deeplab_lit.…`."""
    python = sys.executable

    def use(code):
        if not isinstance(code, Path):
            (tmp_path / "program.py").write_text(code)
            code = tmp_path / "program.py"
        script = tmp_path / "python"
        script.write_text(f'#!/bin/sh\nexec "{python}" "{code}" "$@"\n')
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return use
