import copy

import torch
from torch import nn

from deeplab_lit.network.recompute import recomputed


def test_gradients_and_statistics_are_those_of_an_ordinary_pass():
    """Of trained normalization and dropout, whose second pass may neither count nor draw anew."""
    part = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5))
    other = copy.deepcopy(part)
    x = torch.randn(4, 2, 9, 9)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.manual_seed(1)
    part(one).square().sum().backward()
    torch.manual_seed(1)
    recomputed(other, two).square().sum().backward()
    torch.testing.assert_close(two.grad, one.grad, rtol=0, atol=0)
    for expected, found in zip(
        part.state_dict().values(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for expected, found in zip(part.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=0)
    assert (other[1].momentum, int(other[1].num_batches_tracked)) == (0.1, 1)
