"""A GPU computes what the CPU computes. The CPU runs the same bodies, the small ones among them."""

import math

import pytest
import torch

from deeplab_lit.benchmark.equal_parts import part_checks
from deeplab_lit.benchmark.equal_training import training_checks
from deeplab_lit.benchmark.equality import Check, distance, exact_float32, network_checks

CHECKS = [*network_checks(), *part_checks(), *training_checks()]
SMALL = [check for check in CHECKS if check.is_small]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_gpu_computes_what_the_cpu_computes(check, gpu):
    assert not check.failures(check.differences(gpu))


@pytest.mark.parametrize("check", SMALL, ids=lambda check: check.name)
def test_the_cpu_computes_what_it_computes_in_float64_or_once_more(check):
    assert not check.failures(check.differences(torch.device("cpu")))


def test_a_distance_is_relative_to_what_is_expected():
    assert distance(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.4 / 5)
    assert distance(torch.tensor([3.0, 4.0]), torch.zeros(2)) == 5
    assert math.isnan(distance(torch.tensor([math.nan]), torch.ones(1)))
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(1,\)"):
        distance(torch.ones(2), torch.ones(1))


def test_what_is_beyond_its_tolerance_or_no_number_fails():
    check = Check("x", lambda device: {}, {"a": 1e-3, "b": 0})
    assert check.failures({"a": 1e-3, "b": 0.0}) == []
    assert check.failures({"a": 2e-3, "b": math.nan}) == [
        "a 2.0e-03, at most 1e-03 expected",
        "b nan, at most 0e+00 expected",
    ]


def test_exact_float32_leaves_the_setting_as_it_was():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        with exact_float32():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32 == before[1]
    finally:
        torch.set_float32_matmul_precision(before[0])
