import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.cli.score_tables import cityscapes_table
from deeplab_lit.data import Cityscapes
from deeplab_lit.data.cityscapes import LABEL_IDS
from deeplab_lit.scoring.cityscapes import (
    CityscapesScores,
    Instances,
    instance_hits,
)
from deeplab_lit.scoring.metric import SegmentationScores, iou_of
from deeplab_lit.scoring.per_image import count

CLASSES = list(Cityscapes.classes)
SIZE = (120, 160)


def guess(labels, rng):
    """Class indices that are right on about half of the pixels."""
    index = np.full(256, 0, np.uint8)
    index[list(LABEL_IDS)] = range(19)
    return np.where(rng.random(labels.shape) < 0.5, index[labels], rng.integers(0, 19, SIZE))


def ours(data, split, predictions):
    """Scores, and IoU of the classes."""
    callback = CityscapesScores(Instances(*data.instances(split)))
    metric, hits, own = SegmentationScores(19), {}, data.split(split)
    for i, id in enumerate(own.ids):
        metric.update(
            torch.from_numpy(predictions[i])[None].long(), torch.from_numpy(own.read(i)[1])[None]
        )
        hits[id] = instance_hits(
            predictions[i], callback.instances.read(id), callback.instances.categories
        )
    confusion = metric.compute().confusion
    return callback.score(confusion, hits, CLASSES), iou_of(confusion).tolist()


def official(data, split, predictions, folder, monkeypatch):
    """What the benchmark's own script says."""
    pytest.importorskip("cityscapesscripts", reason="cityscapesscripts is not installed")
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script

    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # it was written for an older NumPy
    script.args.quiet, script.args.JSONOutput = True, False
    truth, files = [str(pair.mask) for pair in data.split(split).pairs], []
    for i, mask in enumerate(predictions):
        files.append(str(folder / f"pred_{i}.png"))
        Image.fromarray(np.array(LABEL_IDS, np.uint8)[mask]).save(files[-1])
    return script.evaluateImgLists(files, truth, script.args)


def same(found, expected):
    return found == expected or (found is None and math.isnan(expected))


def last_digit(value):
    """NumPy's releases add up in different orders."""
    return pytest.approx(value, rel=1e-15, abs=0)


def compare(data, split, predictions, folder, monkeypatch):
    expected = official(data, split, predictions, folder, monkeypatch)
    found, iou = ours(data, split, predictions)
    for name, value in zip(CLASSES, iou, strict=True):
        assert same(None if math.isnan(value) else value, expected["classScores"][name])
    for name, value in found["iou_category"].items():
        assert same(value, expected["categoryScores"][name]), name
    for name, value in found["iiou"].items():
        assert same(value, expected["classInstScores"][name]), name
    for name, value in found["iiou_category"].items():
        assert same(value, expected["categoryInstScores"][name]), name
    assert set(found["iiou_category"]) == {"human", "vehicle"}
    assert found["iou_category_mean"] == last_digit(expected["averageScoreCategories"])
    assert found["iiou_mean"] == last_digit(expected["averageScoreInstClasses"])
    assert found["iiou_category_mean"] == expected["averageScoreInstCategories"]
    return found


def test_drawn_frames_score_as_the_official_script_says_to_the_last_digit(
    city, tmp_path, monkeypatch
):
    rng = np.random.default_rng(1)
    labels = [np.asarray(Image.open(pair.mask)) for pair in city.split("val").pairs]
    predictions = [guess(own, rng).astype(np.uint8) for own in labels]
    found = compare(city, "val", predictions, tmp_path, monkeypatch)
    assert 0 < found["iiou_mean"] < 1


def test_real_frames_score_as_the_official_script_says_to_the_last_digit(tmp_path, monkeypatch):
    root = Path(__file__).parents[2].parent / "shared/data/cityscapes"
    if not root.is_dir():
        pytest.skip("the real data is not here: cityscapes")
    data, rng = Cityscapes(str(root)), np.random.default_rng(2)
    predictions = []
    for i in range(2):
        mask = data.split("train").read(i)[1]
        moved = np.roll(np.where(mask == 255, 0, mask), (3, 9), (0, 1))
        noise = rng.random(mask.shape) < 0.02
        predictions.append(np.where(noise, rng.integers(0, 19, mask.shape), moved).astype(np.uint8))
    compare(data, "train", predictions, tmp_path, monkeypatch)


def test_iiou_worked_out_by_hand():
    """Two persons of 2 and 8 pixels, of which 1 and 8 are found; one pixel of road taken for one.

    With an average size of 4 the hits weigh 1 × 2 + 8 × ½ = 6, the miss 1 × 2, the false pixel 1.
    """
    person, car = CLASSES.index("person"), CLASSES.index("car")
    instances = np.full((1, 12), -1, np.int32)
    instances[0, :2], instances[0, 2:10] = 1000 * person, 1000 * person + 1
    mask = np.array([[person] * 10 + [0, 0]])
    labels = np.array([[person, car] + [person] * 9 + [0]])
    about = Instances({"human": (person,)}, {person: 4.0}, lambda id: instances)
    confusion = torch.zeros(19, 19, dtype=torch.int64)
    for true, predicted in zip(mask[0], labels[0], strict=True):
        confusion[true, predicted] += 1
    hits = {"a": instance_hits(labels, instances, about.categories)}
    assert hits["a"].tolist() == [[person, 2, 1, 1], [person, 8, 8, 8]]
    found = CityscapesScores(about).score(confusion, hits, CLASSES)
    assert found["iiou"] == {"person": pytest.approx(6 / (6 + 1 + 2))}
    assert found["iou_category"] == {"human": pytest.approx(9 / 11)}
    counts = count(torch.from_numpy(labels), torch.from_numpy(mask), 19)
    assert counts[:, person].tolist() == [9, 10, 10]


def test_without_instance_maps_there_is_no_iiou_and_it_says_so(city):
    city.instance_map("val", "bonn_000001_000019").unlink()
    categories, sizes, read = city.instances("val")
    assert read is None
    callback = CityscapesScores(Instances(categories, sizes, read))
    found = callback.score(torch.eye(19, dtype=torch.int64), {}, CLASSES)
    assert found.keys() == {"iou_category", "iou_category_mean"}
    assert found["iou_category_mean"] == 1
    assert "no iIoU" in cityscapes_table(found)
    assert "flat" in cityscapes_table(found)
