import math

import numpy as np
import pytest
import torch

from deeplab_lit.cli.score_tables import score_table
from deeplab_lit.runs.checkpoints import logged_names
from deeplab_lit.scoring import metric as metric_file
from deeplab_lit.scoring.metric import PixelLoss, Scalar, SegmentationScores


def score(prediction, mask, classes):
    metric = SegmentationScores(classes)
    metric.update(torch.as_tensor(prediction), torch.as_tensor(mask))
    return metric.compute()


def random_masks(images=7, classes=6, seed=0):
    """Predictions and truths with void; class 4 is never true, class 5 neither true nor found."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes - 2, (images, 20, 30)).astype(np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 5, truth.shape))
    truth[rng.random(truth.shape) < 0.1] = 255
    return torch.from_numpy(prediction), torch.from_numpy(truth)


def numpy_scores(prediction, truth, classes):
    """The same scores from a bincount."""
    prediction, truth = prediction.numpy().ravel(), truth.numpy().ravel()
    seen = truth != 255
    pairs = classes * truth[seen].astype(np.int64) + prediction[seen]
    confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    hits, true, found = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        iou, accuracy = hits / (true + found - hits), hits / true
    return {
        "confusion": confusion,
        "iou": iou,
        "miou": np.nanmean(iou),
        "pixel_accuracy": hits.sum() / true.sum(),
        "mean_accuracy": np.nanmean(accuracy),
        "fw_iou": np.nansum(true * iou) / true.sum(),
    }


def test_scores_worked_out_by_hand():
    scores = score([[0, 0, 1, 1, 3, 2]], [[0, 0, 0, 1, 1, 255]], classes=4)
    assert scores.confusion.tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0] * 4, [0] * 4]
    assert scores.iou[[0, 1, 3]].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert scores.miou == pytest.approx(1 / 3)
    assert scores.scalars["pixel_accuracy"] == pytest.approx(3 / 5)
    assert scores.scalars["mean_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.scalars["fw_iou"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 3) / 5)


def test_a_class_that_is_absent_has_no_iou_and_stays_out_of_the_mean():
    scores = score([[0, 0, 1]], [[0, 0, 1]], classes=3)
    assert math.isnan(scores.iou[2])
    assert scores.miou == 1


def test_a_class_found_in_void_only_is_absent():
    scores = score([[0, 2]], [[0, 255]], classes=3)
    assert scores.iou.isnan().tolist() == [False, True, True]
    assert scores.miou == 1


def test_a_class_found_but_never_true_counts_as_zero():
    scores = score([[0, 0, 0, 2]], [[0, 0, 0, 0]], classes=3)
    assert scores.iou[2] == 0
    assert scores.miou == pytest.approx((3 / 4 + 0) / 2)
    assert scores.scalars["mean_accuracy"] == pytest.approx(3 / 4)  # over classes in the truth only


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_numpys(seed):
    prediction, truth = random_masks(seed=seed)
    found, expected = score(prediction, truth, 6), numpy_scores(prediction, truth, 6)
    assert found.confusion.tolist() == expected["confusion"].tolist()
    assert found.confusion.dtype == torch.int64
    assert found.iou.numpy() == pytest.approx(expected["iou"], nan_ok=True)
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou"):
        assert found.scalars[name] == pytest.approx(expected[name], rel=1e-6), name


def test_nothing_but_void_gives_no_scores():
    scores = score([[0, 1]], [[255, 255]], classes=2)
    assert scores.iou.isnan().all()
    assert scores.confusion.sum() == 0
    assert all(map(math.isnan, scores.scalars.values()))
    assert set(scores.as_dict(["a", "b"])["iou"].values()) == {None}


def test_image_by_image_is_all_at_once():
    prediction, truth = random_masks()
    metric = SegmentationScores(6)
    for i in range(len(truth)):
        metric.update(prediction[i : i + 1, : 10 + i], truth[i : i + 1, : 10 + i])
        metric.update(prediction[i : i + 1, 10 + i :], truth[i : i + 1, 10 + i :])
    together = score(prediction, truth, 6)
    assert metric.compute().confusion.equal(together.confusion)
    assert metric.compute().miou == together.miou


def test_reset_forgets():
    metric = SegmentationScores(2)
    metric.update(torch.tensor([[0]]), torch.tensor([[1]]))
    metric.compute()
    metric.reset()
    metric.update(torch.tensor([[1]]), torch.tensor([[1]]))
    assert metric.compute().miou == 1


def test_counts_are_exact_beyond_what_float32_holds():
    metric = SegmentationScores(2)
    metric.update(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.uint8))
    metric.confmat.fill_(2**24)
    metric.update(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.uint8))
    assert metric.compute().confusion[0, 0] == 2**24 + 1


def test_scores_become_plain_numbers_for_a_file_and_names_for_a_log():
    scores = score([[0, 0, 1, 1]], [[0, 0, 0, 1]], classes=3)
    names = ["sky", "tree", "bird"]
    assert scores.as_dict(names) == {
        "miou": pytest.approx((2 / 3 + 1 / 2) / 2),
        "classes_in_miou": 2,
        "pixel_accuracy": 0.75,
        "mean_accuracy": pytest.approx((2 / 3 + 1) / 2),
        "fw_iou": pytest.approx(0.75 * 2 / 3 + 0.25 * 1 / 2),
        "iou": {"sky": pytest.approx(2 / 3), "tree": 0.5, "bird": None},
    }
    assert next(iter(scores.as_dict(names))) == "miou"
    assert list(scores.named("val", names)) == [
        *("val/miou", "val/pixel_accuracy", "val/mean_accuracy", "val/fw_iou"),
        *("val/iou/sky", "val/iou/tree"),  # no class that is absent
    ]


def test_a_scalar_of_the_confusion_matrix_is_added_in_one_place(monkeypatch):
    """Logged, written and shown, and known to whoever checks what callbacks watch."""
    kappa = Scalar("Cohen's kappa", lambda confusion: confusion.trace().item() / 10)
    monkeypatch.setitem(metric_file.SCALARS, "kappa", kappa)
    scores = score([[0, 0, 1, 1]], [[0, 0, 0, 1]], classes=2)
    assert scores.named("val", ["sky", "tree"])["val/kappa"] == 0.3
    assert scores.as_dict(["sky", "tree"])["kappa"] == 0.3
    assert ["Cohen's", "kappa", "30.00"] in [
        line.split() for line in score_table(scores.as_dict(["sky", "tree"])).splitlines()
    ]
    assert "val_crf/kappa" in logged_names(["sky", "tree"], crf=True)


def images_with_labels():
    """Seven images of one size, logits and masks; void here and there, and one image all void."""
    torch.manual_seed(3)
    logits, mask = 4 * torch.randn(7, 5, 150, 9), torch.randint(0, 5, (7, 150, 9))
    mask[torch.rand(mask.shape) < 0.3] = 255
    mask[4] = 255
    return logits, mask.to(torch.uint8)


def loss_of(logits, mask, batch_size):
    metric = PixelLoss()
    for part in zip(logits.split(batch_size), mask.split(batch_size), strict=True):
        metric.update(*part)
    return metric


def test_the_loss_of_a_validation_is_the_mean_over_its_labeled_pixels():
    logits, mask = images_with_labels()
    x, truth = logits.double().permute(0, 2, 3, 1).numpy(), mask.numpy()
    labeled = truth != 255
    chosen = np.take_along_axis(x, np.where(labeled, truth, 0)[..., None], axis=3)[..., 0]
    expected = (np.log(np.exp(x).sum(3)) - chosen)[labeled].mean()
    assert loss_of(logits, mask, 3).compute() == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_a_validation_is_the_same_number_in_any_batches_and_order():
    logits, mask = images_with_labels()
    expected = loss_of(logits, mask, 1).compute()
    assert loss_of(logits, mask, 2).compute() == expected
    assert loss_of(logits, mask, 7).compute() == expected
    assert loss_of(logits.flip(0), mask.flip(0), 4).compute() == expected


def test_where_nothing_is_labeled_there_is_no_loss_of_a_validation():
    logits, mask = images_with_labels()
    assert math.isnan(loss_of(logits[4:5], mask[4:5], 1).compute())


def test_a_probability_that_was_rounded_to_0_costs_much_but_not_everything():
    certain = torch.tensor([1.0, 0.0]).log()[None, :, None, None]  # as fused views may be
    assert loss_of(certain, torch.tensor([[[1]]]), 1).compute() == pytest.approx(103.28)
    assert math.isnan(loss_of(certain * math.nan, torch.tensor([[[1]]]), 1).compute())
