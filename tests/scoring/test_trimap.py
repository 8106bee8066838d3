import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deeplab_lit.cli.score_tables import trimap_table
from deeplab_lit.scoring import trimap
from deeplab_lit.scoring.metric import finite
from deeplab_lit.scoring.observer import ScoredImage
from deeplab_lit.scoring.trimap import WIDTHS, Trimap, TrimapScores, distance


def brute_force(mask, around):
    """Every pixel against every other one."""
    places = np.argwhere(np.ones_like(mask))
    found = np.full(mask.shape, np.inf)
    for y, x in places:
        if around == "void":
            others = np.argwhere(mask == 255)
        elif mask[y, x] == 255:
            continue
        else:
            others = np.argwhere((mask != mask[y, x]) & (mask != 255))
        if len(others):
            found[y, x] = np.sqrt(((others - (y, x)) ** 2).sum(1)).min()
    return found


@pytest.mark.parametrize("around", ["void", "classes"])
def test_distances_are_those_to_the_nearest_border_pixel(around):
    rng = np.random.default_rng(0)
    mask = np.kron(rng.integers(3, size=(4, 5)), np.ones((4, 4))).astype(np.uint8)
    mask[rng.random(mask.shape) < 0.05] = 255
    np.testing.assert_allclose(distance(mask, around), brute_force(mask, around), rtol=1e-6)


@pytest.mark.parametrize("around", ["void", "classes"])
def test_an_image_without_borders_has_no_band(around):
    assert np.isinf(distance(np.zeros((3, 4), np.uint8), around)).all()


def test_void_itself_is_not_counted():
    mask = np.array([[255, 0, 0, 0, 1]], np.uint8)
    scores = TrimapScores(2, widths=[1, 2, 4])
    scores.update(torch.ones(1, 5).long(), torch.from_numpy(mask), distance(mask, "void"))
    # width 1: one pixel of class 0, taken for 1. Width 4: three of them, and one of 1 that is right
    assert scores.compute().tolist() == pytest.approx([0, 0, (0 + 1 / 4) / 2])


@pytest.mark.parametrize("around", ["void", "classes"])
def test_the_curve_is_that_of_a_confusion_matrix_a_width(around):
    rng = np.random.default_rng(1)
    masks = np.kron(rng.integers(3, size=(2, 4, 5)), np.ones((1, 6, 6))).astype(np.uint8)
    masks[:, 10:12] = 255
    labels = rng.integers(3, size=masks.shape)
    scores = TrimapScores(3, widths=[1, 2, 5])
    for one_labels, one_mask in zip(labels, masks, strict=True):  # counted over the whole set
        near = distance(one_mask, around)
        scores.update(torch.from_numpy(one_labels), torch.from_numpy(one_mask), near)
    for width, miou in zip([1, 2, 5], scores.compute().tolist(), strict=True):
        near = np.stack([distance(mask, around) <= width for mask in masks]) & (masks != 255)
        iou = [
            ((labels == c) & (masks == c) & near).sum()
            / (((labels == c) | (masks == c)) & near).sum()
            for c in range(3)
        ]
        assert miou == pytest.approx(np.mean(iou))


def test_a_class_that_is_far_from_every_border_stays_out_of_the_mean():
    mask = torch.tensor([[0, 1, 1, 1, 1]], dtype=torch.uint8)
    scores = TrimapScores(3, widths=[1])
    scores.update(mask.long(), mask, distance(mask.numpy(), "classes"))
    assert scores.compute().item() == 1


def test_a_validation_writes_the_curves_before_and_after_the_crf(validated):
    before, after = TrimapScores(7), TrimapScores(7)
    for image in validated.witness.images:
        near = distance(image.mask.numpy(), "classes")
        before.update(image.labels, image.mask, near)
        after.update(image.refined, image.mask, near)
    with (validated.folder / "trimap.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["width", "miou", "miou_crf", "around"]
    assert [int(row["width"]) for row in rows] == list(WIDTHS)
    assert {row["around"] for row in rows} == {"classes"}
    curves = validated.results.entries["trimap"]
    assert (curves["around"], curves["width"]) == ("classes", list(WIDTHS))
    for name, scores in (("miou", before), ("miou_crf", after)):
        expected = scores.compute().tolist()
        assert [row[name] for row in rows] == list(map(str, expected))
        assert curves[name] == [finite(value) for value in expected]
    assert (validated.folder / "trimap.png").is_file()


def test_distances_are_measured_once_an_image(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(trimap, "distance", lambda *a: measured.append(1) or distance(*a))
    observer, mask = Trimap(tmp_path, "classes"), torch.tensor([[0, 1, 1]], dtype=torch.uint8)
    observer.start(None, SimpleNamespace(classes={"a": 0, "b": 1}, device=torch.device("cpu")))
    observer.see(ScoredImage(0, "a", None, mask, mask, 1 - mask))
    assert len(measured) == 1
    assert [scores.rings.sum() for scores in observer.scores.values()] == [3, 3]
    assert [scores.compute()[-1] for scores in observer.scores.values()] == [1, 0]


def test_the_table_shows_some_widths_in_percent():
    curves = {"around": "void", "width": list(WIDTHS)}
    curves |= {"miou": [i / 100 for i in range(40)], "miou_crf": [None] + [0.5] * 39}
    title, before, after = trimap_table(curves).splitlines()
    assert title.split()[-12:] == ["≤", "1", "≤", "2", "≤", "5", "≤", "10", "≤", "20", "≤", "40"]
    assert before.split() == ["mIoU", "0.00", "1.00", "4.00", "9.00", "19.00", "39.00"]
    assert after.split()[-6:] == ["–"] + ["50.00"] * 5
