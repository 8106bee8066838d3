import pytest
import torch

from deeplab_lit.training.divergence import TrainingDiverged, check_collapse, check_finite
from deeplab_lit.training.metric import SegmentationScores

CLASSES = ["sky", "tree"]


def scores(truth, predicted):
    metric = SegmentationScores(2)
    metric.update(torch.tensor([predicted]), torch.tensor([truth], dtype=torch.uint8))
    return metric.compute()


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_says_what_helps(loss):
    check_finite(torch.tensor(1e30), 7)
    with pytest.raises(
        TrainingDiverged, match=rf"the loss is {loss} at step 7: a lower --model\.lr"
    ):
        check_finite(torch.tensor(loss), 7)


def test_one_class_that_takes_all_predictions_is_named_with_its_share_of_the_truth():
    flat = scores([0, 1, 1, 1], [0, 0, 0, 0])
    with pytest.raises(TrainingDiverged, match=r"step 9 100\.00 % .* are sky, which has 25\.00 %"):
        check_collapse(flat, CLASSES, 0.99, 9)
    check_collapse(flat, CLASSES, 1, 9)  # never


def test_a_class_that_most_pixels_are_of_may_be_predicted_as_often():
    check_collapse(scores([0, 0, 0, 0], [0, 0, 0, 0]), CLASSES, 0.99, 9)
    check_collapse(scores([0, 0, 0, 1], [0, 0, 0, 1]), CLASSES, 0.5, 9)
    with pytest.raises(TrainingDiverged):  # of void nothing counts
        check_collapse(scores([1, 255, 255, 255], [0, 1, 1, 1]), CLASSES, 0.99, 9)
