import pytest
import torch

from deeplab_lit.crf.mean_field import mean_field


class Average:
    """A kernel that connects all pixels alike: the simplest there is."""

    def __init__(self, weight):
        self.weight = weight

    def filter(self, q):
        return self.weight * q.mean(0, keepdim=True).expand_as(q)


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_each_step_is_a_softmax_of_unary_and_messages(iterations):
    torch.manual_seed(0)
    unary = torch.rand(7, 3)
    expected = torch.softmax(-unary, 1)
    for _ in range(iterations):
        message = 2.0 * expected.mean(0) + 0.5 * expected.mean(0)
        expected = torch.softmax(-unary + message, 1)
    found = mean_field(unary.clone(), [Average(2.0), Average(0.5)], iterations)
    torch.testing.assert_close(found, expected)


def test_without_kernels_the_unary_decides():
    unary = torch.rand(5, 4)
    torch.testing.assert_close(mean_field(unary, [], 10), torch.softmax(-unary, 1))
