import json
import warnings

import numpy as np
import pytest
import torch

from deeplab_lit.crf import DenseCRF
from deeplab_lit.runs.record import RunRecord
from deeplab_lit.scoring.crf_scores import CRFScores
from deeplab_lit.scoring.tables import table


def confusion(module, data, crf):
    """The slow way: one image after the other, counted by NumPy."""
    net, split = module.net.eval(), data.split("val")
    counts = np.zeros((7, 7), np.int64)
    for index in range(len(split.ids)):
        image, mask = split.read(index)
        with torch.no_grad():
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
            probabilities = net(pixels)[0].softmax(0).numpy()
        labels = crf(image, probabilities).argmax(0)
        np.add.at(counts, (mask[mask != 255], labels[mask != 255]), 1)
    return counts


@pytest.fixture
def module(make_module):
    module = make_module()
    torch.nn.init.normal_(module.net.head.branches[0].weight, std=0.5)
    return module


@pytest.mark.parametrize("batch", [1, 2])
def test_scores_are_those_of_refining_one_image_after_the_other(
    module, make_data, make_trainer, tmp_path, batch
):
    options = DenseCRF(bi_xy_std=20, bi_rgb_std=20, iterations=3, backend="torch")
    data, callback = make_data(eval_batch_size=batch), CRFScores(options)
    record = RunRecord(tmp_path, {}, callback)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = make_trainer(callbacks=[callback, record])
        (logged,) = trainer.validate(module, data, verbose=False)
    expected = confusion(module, data, options)
    np.testing.assert_array_equal(callback.scores.confusion.numpy(), expected)
    before = module.scores.confusion.numpy()
    assert (before != expected).any()
    assert before.sum() == expected.sum()
    assert logged["val_crf/miou"] == pytest.approx(callback.scores.miou)
    assert logged["val/miou"] == pytest.approx(module.scores.miou)
    written = json.loads((tmp_path / "results.json").read_text())["final"]["crf"]
    assert written["miou"] == pytest.approx(callback.scores.miou)
    assert (written["backend"], written["bi_rgb_std"], written["iterations"]) == ("torch", 20, 3)
    assert written["seconds_per_image"] > 0


def test_a_crf_that_fails_ends_the_validation(module, make_data, make_trainer, monkeypatch):
    def refine(self, image, probabilities):
        raise RuntimeError("no memory")

    monkeypatch.setattr(DenseCRF, "__call__", refine)
    trainer = make_trainer(callbacks=[CRFScores(DenseCRF(backend="torch"))])
    with pytest.raises(RuntimeError, match="no memory"):
        trainer.validate(module, make_data(), verbose=False)


def test_the_table_shows_before_after_and_gain():
    before = {"miou": 0.5, "pixel_accuracy": 0.9, "mean_accuracy": 0.5, "fw_iou": 0.25}
    after = before | {"miou": 0.625, "iou": {"sky": 0.5, "tram": None}}
    lines = table(before | {"iou": {"sky": 0.75, "tram": None}, "crf": after}).splitlines()
    assert lines[0].split() == ["before", "after", "gain"]
    assert lines[1].split() == ["sky", "75.00", "50.00", "-25.00"]
    assert lines[2].split() == ["tram", "–", "–", "–"]
    assert lines[4].split() == [
        "mIoU",
        "50.00",
        "62.50",
        "+12.50",
        *["over", "1", "of", "2", "classes"],
    ]
