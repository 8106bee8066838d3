import math

import pytest
import torch

from deeplab_lit.errors import UserError
from deeplab_lit.network import half_precision
from deeplab_lit.network.half_precision import time_ratio, why_slow

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch):
    """Make half precision so many times as slow, or refused."""

    def make(ratio):
        def answer(dtype, *, trains):
            if isinstance(ratio, Exception):
                raise ratio
            return ratio

        monkeypatch.setattr(half_precision, "time_ratio", answer)

    return make


def test_a_slower_precision_is_named_with_what_it_costs(processor):
    processor(12.64)
    assert why_slow(torch.bfloat16, CPU, "--precision float32") == (
        "bfloat16 is slower than float32 on this processor: a 3×3 convolution takes 12.6 times as "
        "long. Take --precision float32"
    )
    assert why_slow(torch.float16, CPU, "another").startswith("float16 is slower than float32")


@pytest.mark.parametrize("ratio", [0.45, 1.1])
def test_what_is_faster_or_about_as_fast_is_no_matter(processor, ratio):
    processor(ratio)
    assert why_slow(torch.bfloat16, CPU, "") is None


def test_only_half_precision_on_a_processor_is_asked_about(processor):
    processor(RuntimeError("asked"))
    assert why_slow(torch.float32, CPU, "") is None
    assert why_slow(torch.float64, CPU, "") is None
    assert why_slow(torch.bfloat16, torch.device("meta"), "") is None


def test_what_torch_refuses_on_this_processor_is_refused_before_the_first_step(processor):
    processor(RuntimeError("DNNL does not support bf16/f16 backward on avx2_vnni_2\nat line 3"))
    with pytest.raises(UserError, match=r"^bfloat16 does not work .* avx2_vnni_2\): take x$"):
        why_slow(torch.bfloat16, CPU, "x")


@pytest.mark.parametrize("trains", [True, False])
def test_the_quickest_passes_are_compared(monkeypatch, trains):
    passes = []

    def seconds(call):
        call()
        passes.append(len(passes))
        return [3.0, 9.0, 2.0, 1.0, *[5.0] * 96][passes[-1]]

    monkeypatch.setattr(half_precision, "_seconds", seconds)
    assert time_ratio(torch.bfloat16, trains=trains) == 0.5
    assert len(passes) == 2 * half_precision.REPEATS


def test_what_is_far_slower_is_not_timed_for_long(monkeypatch):
    times = iter([1.0, 50.0, 1.0, 40.0])
    monkeypatch.setattr(half_precision, "_seconds", lambda call: next(times))
    assert time_ratio(torch.bfloat16) == 40


def test_the_question_leaves_no_trace():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert math.isfinite(time_ratio(torch.bfloat16))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
