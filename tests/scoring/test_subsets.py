"""The two rules for mIoU16 and mIoU13 against a slow NumPy way: pixels masked, then counted."""

import json
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from deeplab_lit import fit, validate
from deeplab_lit.data import Cityscapes, DataError, Folder
from deeplab_lit.scoring.metric import Scores, SegmentationScores
from deeplab_lit.scoring.subsets import NO_SUBSETS, Subsets, choose_subsets, lacked_by

CLASSES = list(Cityscapes.classes)
VEGETATION, TERRAIN = CLASSES.index("vegetation"), CLASSES.index("terrain")


def subsets(rule):
    return choose_subsets(SimpleNamespace(subsets=Cityscapes.subsets), CLASSES, rule)


def scores(prediction, truth, rule):
    metric = SegmentationScores(19)
    metric.update(torch.as_tensor(prediction), torch.as_tensor(truth))
    return Scores(metric.compute().confusion, subsets=subsets(rule))


def slow(prediction, truth, members, counted):
    """The mean IoU of `members` over the pixels whose truth is in `counted`, class by class."""
    seen = np.isin(truth, counted)
    values = []
    for index in members:
        true, found = truth[seen] == index, prediction[seen] == index
        if union := (true | found).sum():
            values.append((true & found).sum() / union)
    return sum(values) / len(values), len(values)


def test_cityscapes_subsets_are_those_of_the_published_evaluations():
    # trainIds of the 16 and the 13 as BDL's evaluation.py lists them
    sixteen = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
    thirteen = (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
    assert subsets("rows").members == {"16": sixteen, "13": thirteen}


@pytest.mark.parametrize(("rule", "expected"), [("rows", 0.5), ("pixels", 1.0)])
def test_terrain_taken_for_vegetation_counts_by_rows_and_not_by_pixels(rule, expected):
    truth = np.array([[VEGETATION, VEGETATION, TERRAIN, TERRAIN]])
    found = scores(np.full_like(truth, VEGETATION), truth, rule)
    assert found.scalars["miou16"] == found.scalars["miou13"] == expected
    assert found.scalars["miou"] == 0.25  # of vegetation and terrain, by either rule


def test_a_class_that_is_predicted_and_never_true_counts_as_zero_in_a_subset():
    confusion = torch.tensor([[50, 10, 0], [5, 30, 5], [0, 0, 0]])
    parts = Subsets("rows", {"3": (0, 1, 2), "2": (0, 1)})
    found = Scores(confusion, subsets=parts).scalars
    assert found["miou3"] == pytest.approx(0.4564, abs=5e-5)
    assert found["miou2"] == pytest.approx(0.6846, abs=5e-5)


@pytest.mark.parametrize("seed", range(3))
def test_both_rules_equal_a_slow_reference(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 19, (5, 20, 30))
    prediction = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 19, truth.shape))
    truth[truth == 4] = 4 if seed else 255  # no fence is true
    prediction[prediction == 4] = 4 if seed else 0  # or predicted
    truth[rng.random(truth.shape) < 0.1] = 255
    everything, sixteen = list(range(19)), subsets("rows").members["16"]
    for rule, counted in {"rows": everything, "pixels": sixteen}.items():
        found = scores(prediction, truth, rule)
        as_dict = found.as_dict(CLASSES)
        for name, members in subsets(rule).members.items():
            expected, number = slow(prediction, truth, members, counted)
            assert found.scalars[f"miou{name}"] == pytest.approx(expected, abs=1e-12)
            iou = as_dict["subsets"]["iou"][name]
            assert list(iou) == [CLASSES[i] for i in members]
            assert sum(value is not None for value in iou.values()) == number
        assert as_dict["subsets"]["rule"] == rule
        whole, _ = slow(prediction, truth, everything, everything)
        assert found.scalars["miou"] == pytest.approx(whole, abs=1e-12)


def test_the_names_of_subsets_follow_the_network_s_order_of_classes():
    reordered = CLASSES[::-1]
    data = SimpleNamespace(subsets=Cityscapes.subsets)
    members = choose_subsets(data, reordered, "rows").members["13"]
    assert [reordered[i] for i in members] == list(Cityscapes.subsets["13"])


def test_without_a_pixel_a_subset_has_no_score():
    empty = Scores(torch.zeros(19, 19, dtype=torch.int64), subsets=subsets("pixels"))
    assert math.isnan(empty.named("val", CLASSES)["val/miou16"])
    assert empty.as_dict(CLASSES)["miou16"] is None


def test_subsets_are_scored_unasked_where_the_training_data_lack_classes():
    data = SimpleNamespace(subsets=Cityscapes.subsets)
    assert choose_subsets(data, CLASSES, None) == NO_SUBSETS
    assert choose_subsets(data, CLASSES, None, {"giraffe"}) == NO_SUBSETS
    assert choose_subsets(data, CLASSES, None, {"terrain"}) == subsets("rows")
    without = SimpleNamespace(subsets={})
    assert choose_subsets(without, CLASSES, None, {"terrain"}) == NO_SUBSETS


def test_what_training_data_lack_is_known_of_the_last_that_was_trained_on():
    absent = {"terrain", "truck", "train"}
    assert lacked_by(["unknown", "GTA5:all", "Synthia:all"]) == absent
    assert lacked_by(["synthia:train"]) == absent  # as a user may type it for convert
    assert lacked_by(["Synthia:all", "Cityscapes:train"]) == lacked_by(["GTA5:all"]) == set()
    assert lacked_by(["MyOwn:train"]) == lacked_by([]) == lacked_by(["unknown"]) == set()


def test_data_without_subsets_and_subsets_of_unknown_classes_are_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    data = Folder(root=str(tmp_path))
    with pytest.raises(DataError, match=r"--eval\.subsets pixels: Folder has no subsets"):
        choose_subsets(data, data.classes, "pixels")
    data.subsets = {"1": ("see",)}
    with pytest.raises(DataError, match="'see', which is none of the classes"):
        choose_subsets(data, data.classes, "rows")


@pytest.fixture
def synthia_root(tmp_path, write_image):
    """Two frames of SYNTHIA, in which every class occurs that it has."""
    root = tmp_path / "synthia/RAND_CITYSCAPES"
    (root / "GT/LABELS").mkdir(parents=True)
    for seed, id in enumerate(("0000000", "0000001")):
        write_image(root / f"RGB/{id}.png", seed)
        label = np.zeros((24, 32, 3), np.uint16)
        label[..., 2] = np.resize([c for c in range(22) if c not in (13, 16, 18, 20)], (24, 32))
        cv2.imwrite(str(root / f"GT/LABELS/{id}.png"), label)
    return root


def test_a_training_on_synthia_is_scored_on_16_and_13_classes_without_being_asked(
    synthia_root, city_root, tiny_args, tmp_path, capsys
):
    options = {
        "--data": "Synthia",
        "--data.root": str(synthia_root),
        "--val_data": "Cityscapes",
        "--val_data.root": str(city_root),
        "--trainer.max_steps": "2",
        "--checkpoint.monitor": "val/miou16",
        "--crf.iterations": "1",
        "--run": "one",
    }
    shapes = dict.fromkeys(["--data.train_size", "--data.val_size", "--data.size"])
    run = fit.main(tiny_args(tmp_path / "runs", **shapes | options))
    said = capsys.readouterr().out
    assert "mIoU16 is without terrain, truck, train" in said
    assert "by --eval.subsets rows" in said
    written = json.loads((run.folder / "results.json").read_text())
    expected = slow_of(run.module.scores.confusion.numpy(), Cityscapes.subsets["13"])
    assert written["final"]["miou13"] == pytest.approx(expected)
    assert written["final"]["subsets"]["rule"] == "rows"
    assert written["final"]["crf"]["miou16"] > 0
    metrics = (run.folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val/miou16", "val/miou13", "val_crf/miou16", "val_crf/miou13"} <= set(metrics)
    assert run.trainer.checkpoint_callback.monitor == "val/miou16"

    checkpoint = f"--ckpt_path={run.folder / 'checkpoints/best.ckpt'}"
    place = ["--data=Cityscapes", f"--data.root={city_root}", f"--runs_dir={tmp_path / 'runs'}"]
    scored = validate.main([checkpoint, *place, "--loader.num_workers=0", "--trainer.logger=false"])
    final = scored.record.final
    assert final["miou16"] == pytest.approx(scored.module.scores.scalars["miou16"])
    assert list(final["subsets"]["iou"]["13"]) == list(Cityscapes.subsets["13"])
    record = json.loads((scored.folder / "results.json").read_text())
    assert record["provenance"]["trained_on"] == ["Synthia:all"]
    said = capsys.readouterr().out
    assert "Trained on Synthia:all\n" in said
    asked = ["--eval.subsets=pixels", "--loader.num_workers=0", "--trainer.logger=false"]
    other = validate.main([checkpoint, *place, *asked]).record.final
    assert other["subsets"]["rule"] == "pixels"
    assert other["miou16"] >= final["miou16"]
    assert other["miou"] == final["miou"]


def slow_of(confusion, names):
    """The mean IoU of the named rows of a confusion matrix."""
    values = []
    for index in map(CLASSES.index, names):
        hits = confusion[index, index]
        union = confusion[index].sum() + confusion[:, index].sum() - hits
        values += [hits / union] if union else []
    return sum(values) / len(values)
