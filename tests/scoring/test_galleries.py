from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.crf import DenseCRF
from deeplab_lit.data import Shapes
from deeplab_lit.scoring import galleries
from deeplab_lit.scoring.galleries import (
    SamplePictures,
    ScoreCharts,
    WorstAndBest,
    small,
)
from deeplab_lit.scoring.validation import Validation


@pytest.fixture
def drawn(monkeypatch):
    """Titles, captions and samples of each picture."""
    calls = []

    def keep(samples, classes, titles, captions=()):
        calls.append((titles, list(captions), samples))
        return Image.new("RGB", (2, 2))

    monkeypatch.setattr(galleries, "comparison", keep)
    return calls


def test_predictions_show_images_that_are_spread_over_the_set(validated):
    images = sorted(validated.witness.images, key=lambda image: image.index)
    chosen = [images[i] for i in (0, 3, 5, 8)]
    samples = [[x.numpy() for x in (i.image, i.mask, i.labels, i.refined)] for i in chosen]
    titles = ("image", "truth", "prediction", "after the CRF")
    expected = galleries.comparison(samples, validated.module.classes, titles)
    with Image.open(validated.folder / "predictions.png") as picture:
        np.testing.assert_array_equal(picture, expected)


def test_the_same_images_are_shown_each_time(drawn, make_module, make_data, make_trainer, tmp_path):
    crf = DenseCRF(iterations=1, backend="torch", threads=1)  # images come in any order
    pictures = Validation([SamplePictures(tmp_path, 2)], crf)
    trainer = make_trainer(callbacks=[pictures], val_check_interval=2, num_sanity_val_steps=1)
    trainer.fit(make_module(lr=0.1), make_data())
    assert len(drawn) == 2  # the check before training leaves no picture
    split = Shapes(val_size=5).split("val")
    for titles, _, samples in drawn:
        assert titles == ("image", "truth", "prediction", "after the CRF")
        for (image, truth, _, _), index in zip(samples, (0, 4), strict=True):
            expected = split.read(index)
            np.testing.assert_array_equal(image, expected[0])
            np.testing.assert_array_equal(truth, expected[1])
    first, last = (np.stack([sample[2] for sample in drawn[i][2]]) for i in (0, -1))
    assert (first != last).any()  # the predictions are new


def test_of_a_part_of_the_set_the_pictures_are_spread_over_that_part(
    drawn, make_module, make_data, make_trainer, tmp_path
):
    pictures = Validation([SamplePictures(tmp_path, 2)])
    trainer = make_trainer(callbacks=[pictures], limit_val_batches=2)
    trainer.validate(make_module(), make_data(eval_batch_size=2), verbose=False)
    split = Shapes(val_size=5).split("val")
    ((_, _, samples),) = drawn
    for sample, index in zip(samples, (0, 3), strict=True):
        np.testing.assert_array_equal(sample[0], split.read(index)[0])


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 1, 2, 3]), (3, [0, 3]), (2, [0, 2, 3])])
def test_wandb_is_sent_pictures_now_and_then_and_at_the_end(
    every, steps, make_module, make_data, make_trainer, tmp_path, drawn, fake_wandb
):
    wandb, pictures = fake_wandb(), Validation([SamplePictures(tmp_path, 2, every)])
    trainer = make_trainer(
        callbacks=[pictures], logger=wandb, val_check_interval=1, limit_val_batches=1
    )
    trainer.fit(make_module(), make_data(crop_size=33))
    assert [step for _, step, *_ in wandb.images] == steps
    for name in ("val/iou_by_class", "val/confusion"):
        assert [step for key, step, *_ in wandb.tables if key == name] == steps


def test_wandb_is_sent_images_with_masks_and_tables(
    make_module, make_data, make_trainer, tmp_path, fake_wandb
):
    wandb, module = fake_wandb(), make_module()
    trainer = make_trainer(callbacks=[Validation([SamplePictures(tmp_path, 2)])], logger=wandb)
    trainer.validate(module, make_data(), verbose=False)
    ((key, _, images, captions, masks),) = wandb.images
    assert key == "val/images"
    assert [image.shape for image in images] == [(161, 161, 3)] * 2
    assert captions == ["1000000", "1000004"]
    assert [set(mask) for mask in masks] == [{"truth", "prediction"}] * 2
    labels = masks[0]["truth"]["class_labels"]
    assert labels == {**dict(enumerate(Shapes.classes)), 255: "void"}
    (key, _, columns, rows), confusion = wandb.tables
    assert (key, columns) == ("val/iou_by_class", ["class", "iou"])
    assert [name for name, _ in rows] == list(Shapes.classes)
    np.testing.assert_array_equal([iou for _, iou in rows], module.scores.iou)
    key, _, columns, rows = confusion
    assert (key, columns) == ("val/confusion", ["true", "predicted", "pixels"])
    wires = [(predicted, pixels) for true, predicted, pixels in rows if true == "wire"]
    assert [name for name, _ in wires] == list(Shapes.classes)
    index = list(Shapes.classes).index("wire")
    np.testing.assert_array_equal([n for _, n in wires], module.scores.confusion[index])


def test_the_worst_and_the_best_are_those_of_lowest_and_highest_score(
    drawn, spread_out, make_data, make_trainer, tmp_path, validated
):
    """As images.csv has them; after the CRF they are shown, but do not decide."""
    crf = DenseCRF(bi_xy_std=20, bi_rgb_std=20, iterations=3, backend="torch", threads=1)
    trainer = make_trainer(callbacks=[Validation([WorstAndBest(tmp_path, 2)], crf)])
    trainer.validate(spread_out(), validated.data, verbose=False)
    rows = np.genfromtxt(validated.folder / "images.csv", delimiter=",", names=True, dtype=None)
    order = [str(row["id"]) for row in np.sort(rows, order=("miou", "id"))]
    captions = [caption for _, captions, _ in drawn for caption in captions]
    assert [caption.split()[-1] for caption in captions] == [*order[:2], *order[:-3:-1]]
    assert [caption.split()[0] for caption in captions] == ["worst"] * 2 + ["best"] * 2
    seen = {image.id: image for image in validated.witness.images}
    for caption, sample in zip(captions, [x for *_, part in drawn for x in part], strict=True):
        image = seen[caption.split()[-1]]
        expected = image.image, image.mask, image.labels, image.refined
        for picture, array in zip(sample, expected, strict=True):
            np.testing.assert_array_equal(picture, array)


@pytest.mark.parametrize(("images", "expected"), [(1, 1), (2, 2), (3, 2), (5, 4)])
def test_few_images_are_shown_once_each(
    spread_out, make_data, make_trainer, tmp_path, drawn, images, expected
):
    trainer = make_trainer(callbacks=[Validation([WorstAndBest(tmp_path, 2)])])
    trainer.validate(spread_out(), make_data(val_size=images), verbose=False)
    captions = [caption.split()[-1] for _, captions, _ in drawn for caption in captions]
    assert len(set(captions)) == len(captions) == expected


def test_large_images_are_kept_small_and_labels_stay_labels():
    labels = torch.full((100, 2000), 7)
    labels[:, 1000:] = 3
    assert small(labels).shape == (24, 480)
    assert set(np.unique(small(labels))) == {3, 7}
    image = torch.zeros(3, 100, 2000, dtype=torch.uint8).permute(1, 2, 0)
    assert small(image).shape == (24, 480, 3)
    assert small(labels[:, :50]).shape == (100, 50)


def test_both_scores_are_drawn(validated):
    names = {path.name for path in validated.folder.glob("c*.png")}
    assert names == {"confusion.png", "confusion_crf.png", "classes.png"}


def test_charts_show_the_scores_that_they_are_told(validated, tmp_path, monkeypatch):
    bars, matrices, charts = [], [], ScoreCharts(tmp_path)
    monkeypatch.setattr(galleries, "class_bars", lambda iou, *rest: bars.append(iou))
    monkeypatch.setattr(galleries, "confusion_matrix", lambda *args: matrices.append(args))
    scores, refined = validated.witness.told
    for after in (refined, None):
        charts.start(None, validated.module)
        charts.finish(SimpleNamespace(is_global_zero=True), scores, after)
    assert [list(each) for each in bars] == [["network", "after the CRF"], ["network"]]
    assert str(bars[0]["network"]) == str(scores.iou.tolist())
    assert str(bars[0]["after the CRF"]) == str(refined.iou.tolist())
    assert [path.name for *_, path in matrices] == [
        *("confusion_crf.png", "confusion.png"),
        "confusion.png",
    ]
    assert matrices[0][0] is refined.confusion
    assert matrices[2][0] is scores.confusion


def test_a_picture_that_cannot_be_drawn_leaves_the_one_before(tmp_path, monkeypatch):
    class Broken:
        def save(self, path, **options):
            path.write_bytes(b"half")
            raise OSError("disk full")

    monkeypatch.setattr(galleries, "comparison", lambda *args: Broken())
    (tmp_path / "predictions.png").write_bytes(b"before")
    pictures = SamplePictures(tmp_path)
    pictures.samples = {0: galleries.Sample("a", [np.zeros((2, 2, 3), np.uint8)] * 3)}
    with pytest.raises(OSError, match="disk full"):
        pictures.finish(None, None, None)
    assert (tmp_path / "predictions.png").read_bytes() == b"before"
