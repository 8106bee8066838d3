import csv
import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from deeplab_lit.scoring.per_image import ImageScores, count, image_accuracy, image_miou
from deeplab_lit.scoring.subsets import Subsets
from deeplab_lit.scoring.validation import Validation


def read(folder):
    with (folder / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, np.load(folder / "images.npz")


def test_counts_worked_out_by_hand():
    mask = torch.tensor([[0, 0, 1, 255], [0, 1, 1, 255]], dtype=torch.uint8)
    labels = torch.tensor([[0, 1, 1, 2], [0, 1, 3, 0]])
    hits, true, predicted = count(labels, mask, 4).tolist()
    assert hits == [2, 2, 0, 0]
    assert true == [3, 3, 0, 0]
    assert predicted == [2, 3, 0, 1]
    counts = np.array([hits, true, predicted])
    assert image_miou(counts) == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)  # class 2 is in neither
    assert image_accuracy(counts) == pytest.approx(4 / 6)


def test_an_image_of_nothing_but_void_has_no_score():
    counts = count(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), 255), 3)
    assert not counts.any()
    assert math.isnan(image_miou(counts))
    assert math.isnan(image_accuracy(counts))


def test_an_images_miou_is_torchmetrics():
    torch.manual_seed(3)
    mask, labels = torch.randint(5, (2, 20, 30))
    mask[:4] = 255
    expected = multiclass_jaccard_index(labels, mask, 5, ignore_index=255)
    assert image_miou(count(labels, mask, 5)) == pytest.approx(expected.item())


def test_the_images_add_up_to_the_scores_of_the_set(validated):
    rows, arrays = read(validated.folder)
    assert list(arrays["ids"]) == [row["id"] for row in rows] == sorted(arrays["ids"])
    assert len(rows) == 9
    for prefix, name in (("val", "counts"), ("val_crf", "counts_crf")):
        hits, true, predicted = arrays[name].sum(0)
        union = true + predicted - hits
        miou = (hits[union > 0] / union[union > 0]).mean()
        assert validated.logged[f"{prefix}/miou"] == pytest.approx(miou, abs=1e-6)
        accuracy = validated.logged[f"{prefix}/pixel_accuracy"]
        assert accuracy == pytest.approx(hits.sum() / true.sum())
    split = validated.data.validation()
    for row, counts in zip(rows, arrays["counts_crf"], strict=True):
        assert float(row["miou_crf"]) == image_miou(counts)
        assert float(row["pixel_accuracy_crf"]) == image_accuracy(counts)
        mask = split.read(split.ids.index(row["id"]))[1]
        assert counts[1].tolist() == np.bincount(mask[mask != 255], minlength=7).tolist()
    assert {path.name for path in validated.folder.glob("*images*")} == {"images.csv", "images.npz"}
    assert not list(validated.folder.glob(".*"))


def test_pixels_that_a_subset_does_not_count_have_counts_without_them(
    make_module, make_data, make_trainer, tmp_path
):
    module, observer = make_module(), ImageScores(tmp_path)
    module.subsets = Subsets("pixels", {"3": (0, 1, 4), "2": (0, 1)})
    trainer = make_trainer(callbacks=[Validation([observer])])
    trainer.validate(module, make_data(val_size=2), verbose=False)
    arrays = read(tmp_path)[1]
    assert sorted(arrays) == ["counts", "counts_pixels", "ids"]
    for name, members in module.subsets.members.items():
        hits, true, predicted = arrays["counts_pixels"].sum(0)[:, list(members)]
        union = true + predicted - hits
        expected = (hits[union > 0] / union[union > 0]).mean()
        assert module.scores.scalars[f"miou{name}"] == pytest.approx(expected)
    assert arrays["counts_pixels"][:, 1, [2, 3, 5, 6]].sum() == 0


def test_without_the_crf_there_are_no_columns_of_it(make_module, make_data, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[Validation([ImageScores(tmp_path)])])
    trainer.validate(make_module(), make_data(val_size=2), verbose=False)
    rows, arrays = read(tmp_path)
    assert rows[0].keys() == {"id", "miou", "pixel_accuracy"}
    assert sorted(arrays) == ["counts", "ids"]
