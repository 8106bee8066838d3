import csv

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from deeplab_lit.scoring import media
from deeplab_lit.scoring.media import Sample, log_image_scores, log_samples, log_score_tables
from deeplab_lit.scoring.metric import Scores


def test_images_of_several_sizes_are_filled_up_to_one_size(fake_wandb):
    wandb, sizes = fake_wandb(), [(4, 6), (5, 5), (4, 6)]
    zeros = [np.zeros(size, np.uint8) for size in sizes]
    images = [np.full((*size, 3), 9, np.uint8) for size in sizes]
    samples = [
        Sample(id, [image, zero, zero + 1, zero + 2])
        for id, image, zero in zip("012", images, zeros, strict=True)
    ]
    log_samples(wandb, samples, ["sky"], 7)
    ((key, step, images, captions, masks),) = wandb.images
    assert (key, step, captions) == ("val/images", 7, ["0", "1", "2"])
    for (height, width), image, mask in zip(sizes, images, masks, strict=True):
        assert image.shape == (5, 6, 3)
        assert (image[:height, :width] == 9).all()
        assert image.sum() == 9 * 3 * height * width
        for name, label in (("truth", 0), ("prediction", 1), ("after_crf", 2)):
            labels = mask[name]["mask_data"]
            assert (labels[:height, :width] == label).all()
            assert (labels == 255).sum() == 30 - height * width
            assert labels.dtype == np.uint8


def test_the_table_of_images_is_images_csv_with_the_iou_of_each_class(validated):
    """Before and after the CRF, so that W&B can filter by any of them."""
    ((key, step, columns, data),) = [t for t in validated.wandb.tables if "image" in t[0]]
    assert (key, step) == ("val/image_scores", 0)
    table = [dict(zip(columns, row, strict=True)) for row in data]
    with (validated.folder / "images.csv").open(newline="") as file:
        for row, line in zip(table, csv.DictReader(file), strict=True):
            assert {name: str(row[name]) for name in line} == line
    seen = {image.id: image for image in validated.witness.images}
    for row in table:
        image = seen[row["id"]]
        for name, labels in (("iou", image.labels), ("iou_crf", image.refined)):
            kept = {"ignore_index": 255, "average": None}
            expected = multiclass_jaccard_index(labels.long(), image.mask.long(), 7, **kept)
            present = set(torch.cat([labels.unique(), image.mask.unique()]).tolist())
            for index, label in enumerate(validated.module.classes):
                found = row[f"{name}/{label}"]
                assert found == (pytest.approx(expected[index]) if index in present else None)


def test_of_more_images_than_wandb_takes_the_worst_are_kept_and_that_is_said(
    fake_wandb, monkeypatch, capsys
):
    monkeypatch.setattr(media, "MOST_ROWS", 2)
    wandb, rows = fake_wandb(), [["a", 0.9], ["b", 0.1], ["c", None], ["d", 0.5]]
    log_image_scores(wandb, ["id", "miou"], rows, 3)
    log_image_scores(wandb, ["id", "miou"], rows[:2], 3)
    assert [data for *_, data in wandb.tables] == [[rows[1], rows[3]], rows[:2]]
    (line,) = capsys.readouterr().out.splitlines()
    assert "2 of lowest mIoU of 4" in line


def test_of_a_matrix_that_wandb_would_cut_the_cells_with_most_pixels_are_kept(
    fake_wandb, monkeypatch
):
    monkeypatch.setattr(media, "MOST_ROWS", 2)
    wandb, matrix = fake_wandb(), torch.tensor([[5, 0], [1, 7]])
    log_score_tables(wandb, Scores(matrix), ["sky", "sea"], 0)
    assert wandb.tables[1][3] == [["sea", "sea", 7], ["sky", "sky", 5]]
