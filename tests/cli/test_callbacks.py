"""What every run leaves of its validations, and that the number of processes does not matter."""

import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.cli.callbacks import build_callbacks
from deeplab_lit.crf import DenseCRF
from deeplab_lit.data import Cityscapes
from deeplab_lit.loading import DataModule
from deeplab_lit.scoring.cityscapes import Instances
from deeplab_lit.scoring.evaluation import Evaluation
from deeplab_lit.scoring.galleries import WorstAndBest
from deeplab_lit.scoring.observer import Observer
from deeplab_lit.scoring.per_image import gathered


class Pixels(Observer):
    """A metric of a user's: images whose first row holds class 0, and how many there are."""

    def start(self, trainer, network):
        self.first_rows = {}

    def see(self, image):
        self.first_rows[image.id] = int((image.refined[0] == 0).sum())

    def finish(self, trainer, scores, refined):
        rows = gathered(self.first_rows, trainer)
        return {"first_row": sum(rows.values()) / len(rows), "images_with_rows": len(rows)}


@pytest.fixture
def run(make_module, make_data, make_trainer):
    """Fits or validates a little, on Shapes; returns the folder."""

    def build(verb, folder, evaluation=None, crf=None):
        folder.mkdir()
        record, callbacks = build_callbacks(
            verb, folder, {}, evaluation=evaluation or Evaluation(), crf=crf,
            progress=False,
        )  # fmt: skip
        assert record in callbacks
        trainer = make_trainer(callbacks=callbacks, max_steps=1, val_check_interval=1)
        if verb == "fit":
            trainer.fit(make_module(), make_data(val_size=2))
        else:
            trainer.validate(make_module(), make_data(val_size=2), verbose=False)
        return folder

    return build


def test_a_training_is_not_slowed_by_what_only_validate_writes(run, tmp_path):
    band, crf = Evaluation(trimap="classes"), DenseCRF(iterations=1)
    always = {"results.json", "predictions.png"}
    assert {path.name for path in run("fit", tmp_path / "fit", band).iterdir()} == always
    plain = {path.name for path in run("validate", tmp_path / "plain").iterdir()}
    assert plain == always | {
        *("images.csv", "images.npz", "worst_best.png", "classes.png", "confusion.png")
    }
    full = {path.name for path in run("validate", tmp_path / "full", band, crf).iterdir()}
    assert full == plain | {"confusion_crf.png", "trimap.csv", "trimap.png"}


@pytest.fixture
def validate(city, make_module, make_trainer):
    """Validates with everything that a run has; returns what was logged."""

    def score(folder, **options):
        folder.mkdir()
        (few := folder.with_name(f"{folder.name} few")).mkdir()
        data, module = Cityscapes(str(city.root)), make_module(Cityscapes.classes)
        torch.nn.init.normal_(module.net.head.branches[0].weight, std=0.5)
        _, callbacks = build_callbacks(
            "validate",
            folder,
            {},
            evaluation=Evaluation(trimap="classes"),
            crf=DenseCRF(bi_rgb_std=20, backend="torch"),
            progress=False,
            instances=Instances(*data.instances("val")),
            metrics=[Pixels(), WorstAndBest(few, 1)],  # of three, one is shown by neither
        )
        given = module, DataModule(data, num_workers=0), callbacks
        module, loader, callbacks = pickle.loads(pickle.dumps(given))  # as spawned processes get it
        trainer = make_trainer(callbacks=callbacks[::-1], **options)  # in whatever order
        (logged,) = trainer.validate(module, loader, verbose=False)
        return logged

    return score


def content(path):
    """What a file holds, without what differs from run to run."""
    if path.suffix == ".json":
        values = json.loads(path.read_text())
        del values["final"]["crf"]["seconds_per_image"]
        return values["final"]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tolist() for name in arrays}
    if path.suffix == ".png":
        return Image.open(path).size, hashlib.sha256(Image.open(path).tobytes()).hexdigest()
    return path.read_text()


@pytest.mark.usefixtures("full_charts")
def test_scores_tables_and_pictures_do_not_depend_on_the_number_of_processes(validate, tmp_path):
    """Three images on two processes: one process has one more."""
    one, two = tmp_path / "one", tmp_path / "two"
    logged, together = validate(one), validate(two, devices=2, strategy="ddp_fork")
    assert {k: v for k, v in together.items() if k.startswith("val")} == logged
    assert logged["val_crf/miou"] != logged["val/miou"]
    assert json.loads((two / "results.json").read_text())["processes"] == 2
    names = {path.name for path in one.iterdir()}
    assert names >= {"results.json", "images.csv", "images.npz", "trimap.csv"}
    assert names >= {"worst_best.png", "confusion.png", "classes.png", "trimap.png"}
    assert {path.name for path in two.iterdir()} == names
    for name in names - {"predictions.png"}:  # of the first process's images
        assert content(two / name) == content(one / name), name
    few = "worst_best.png"
    assert content(tmp_path / "two few" / few) == content(tmp_path / "one few" / few)
    final = content(one / "results.json")
    assert final["images"] == final["images_in_split"] == 3
    assert final["metrics"] == {"first_row": logged["val/first_row"], "images_with_rows": 3}
    # iIoU sets counts against weights: pixels counted twice would show
    assert 0 < final["cityscapes"]["iiou_mean"] < 1
