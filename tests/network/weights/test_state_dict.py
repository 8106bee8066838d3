"""Weights are loaded all or not at all."""

import pytest
import torch
from torch import nn

from deeplab_lit.network.weights.read import WeightsError
from deeplab_lit.network.weights.state_dict import load_strictly


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_values_that_are_not_finite_are_refused_by_name_and_nothing_is_loaded(value):
    net = nn.Linear(2, 3)
    before = net.weight.detach().clone()
    state = {"weight": torch.zeros(3, 2), "bias": torch.tensor([0, float(value), 0])}
    with pytest.raises(WeightsError, match=r"some\.pth holds values that are not finite.* bias"):
        load_strictly(net, state, "some.pth")
    assert torch.equal(net.weight, before)


def test_missing_unknown_and_misshapen_weights_are_named():
    state = {"weight": torch.zeros(2, 3), "scale": torch.zeros(1)}
    with pytest.raises(
        WeightsError,
        match=r"missing bias; unknown scale; weight is \(2, 3\), expected \(3, 2\)",
    ):
        load_strictly(nn.Linear(2, 3), state, "some.pth")


def test_counters_of_batches_are_not_asked_for():
    norm = nn.BatchNorm2d(2)
    state = {k: v + 1 for k, v in norm.state_dict().items() if "num_batches" not in k}
    load_strictly(norm, state, "some.pth")
    assert torch.equal(norm.bias, torch.ones(2))
