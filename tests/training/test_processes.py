"""What two processes write when they validate is what one writes."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.cli.callbacks import build_callbacks
from deeplab_lit.crf import DenseCRF
from deeplab_lit.data import Cityscapes
from deeplab_lit.scoring.cityscapes import Instances
from deeplab_lit.scoring.evaluation import Evaluation
from deeplab_lit.scoring.worst_best import WorstAndBest


@pytest.fixture
def validate(city, make_module, make_trainer):
    """Validates with everything that a run has; returns what was logged."""

    def run(folder, **options):
        folder.mkdir()
        data, module = Cityscapes(str(city.root), num_workers=0), make_module(Cityscapes.classes)
        torch.nn.init.normal_(module.net.head.branches[0].weight, std=0.5)
        _, callbacks = build_callbacks(
            "validate",
            folder,
            {},
            evaluation=Evaluation(band="classes"),
            crf=DenseCRF(bi_rgb_std=20, backend="torch"),
            progress=False,
            instances=Instances(*data.instances("val")),
        )
        (few := folder.with_name(f"{folder.name} few")).mkdir()
        callbacks.append(WorstAndBest(few, num_images=1))  # of three, one is shown by neither
        (logged,) = make_trainer(callbacks=callbacks, **options).validate(
            module, data, verbose=False
        )
        return logged

    return run


def content(path):
    """What a file holds, without what differs from run to run."""
    if path.suffix == ".json":
        found = json.loads(path.read_text())
        del found["final"]["crf"]["seconds_per_image"]
        return found["final"]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tolist() for name in arrays}
    if path.suffix == ".png":
        return Image.open(path).size, hashlib.sha256(Image.open(path).tobytes()).hexdigest()
    return path.read_text()


def test_scores_tables_and_pictures_do_not_depend_on_the_number_of_processes(validate, tmp_path):
    """Three images: one process has one more."""
    one, two = tmp_path / "one", tmp_path / "two"
    logged, together = validate(one), validate(two, devices=2, strategy="ddp_spawn")
    assert {k: v for k, v in together.items() if k.startswith("val")} == logged
    assert logged["val_crf/miou"] != logged["val/miou"]
    assert json.loads((two / "results.json").read_text())["processes"] == 2
    names = {path.name for path in one.iterdir()}
    assert names >= {"results.json", "images.csv", "images.npz", "band.csv"}
    assert names >= {"worst_best.png", "confusion.png", "classes.png", "band.png"}
    assert {path.name for path in two.iterdir()} == names
    for name in names - {"predictions.png"}:  # of the first process's images
        assert content(two / name) == content(one / name), name
    few = "worst_best.png"
    assert content(tmp_path / "two few" / few) == content(tmp_path / "one few" / few)
    # iIoU sets counts against weights: pixels counted twice would show
    final = content(one / "results.json")
    assert 0 < final["cityscapes"]["iiou_mean"] < 1
