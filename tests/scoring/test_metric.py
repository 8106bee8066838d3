import math

import numpy as np
import pytest
import torch

from deeplab_lit.scoring.metric import SegmentationScores


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
    assert scores.pixel_accuracy == pytest.approx(3 / 5)
    assert scores.mean_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.fw_iou == pytest.approx((3 * 2 / 3 + 2 * 1 / 3) / 5)


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
    assert scores.mean_accuracy == pytest.approx(3 / 4)  # over classes in the truth only


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_numpys(seed):
    prediction, truth = random_masks(seed=seed)
    found, expected = score(prediction, truth, 6), numpy_scores(prediction, truth, 6)
    assert found.confusion.tolist() == expected["confusion"].tolist()
    assert found.confusion.dtype == torch.int64
    assert found.iou.numpy() == pytest.approx(expected["iou"], nan_ok=True)
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-6), name


def test_nothing_but_void_gives_no_scores():
    scores = score([[0, 1]], [[255, 255]], classes=2)
    assert scores.iou.isnan().all()
    assert scores.confusion.sum() == 0
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou"):
        assert math.isnan(getattr(scores, name)), name


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
