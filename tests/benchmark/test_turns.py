import pytest
import torch

from deeplab_lit.benchmark import turns
from deeplab_lit.benchmark.meter import Seconds
from deeplab_lit.benchmark.turns import Step, compare, in_words
from deeplab_lit.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by what a step takes: a step is a number of seconds."""
    now = [0.0]
    order = []

    def seconds_of(call):
        begun = now[0]
        call()
        return Seconds(now[0] - begun, 2 * (now[0] - begun))

    def peak_memory(run, device, warm_up):
        if warm_up is not None:
            warm_up()
        run()
        return 2.0**30

    def step(name, *seconds, compiles=False):
        taken = iter(seconds)

        def run():
            order.append(name)
            now[0] += next(taken)

        return Step(run, compiles)

    monkeypatch.setattr(turns, "perf_counter", lambda: now[0])
    monkeypatch.setattr(turns, "seconds_of", seconds_of)
    monkeypatch.setattr(turns, "peak_memory", peak_memory)
    step.order = order
    return step


def test_variants_take_turns_after_a_first_step(clock):
    steps = {"base": clock("b", 9, 1, 4), "quick": clock("q", 9, 0.5, 1)}
    base, quick = compare(steps, CPU, 2, 1000)
    assert clock.order == ["b", "q"] * 3
    assert base.ratios == [1, 1]
    assert quick.ratios == [2, 4]
    assert [seconds.wall for seconds in quick.seconds] == [0.5, 1]
    assert quick.processor_ratios == [2, 4]
    title, _, first, second = in_words([base, quick], 2)
    assert title.startswith("median (least…greatest) of 2 rounds")
    lines = [" ".join(line.split()) for line in (first, second)]
    assert lines == [
        "base 2.500 5.000 0.80 1.00 (1.00…1.00) 1.00 1.00 GiB 1.00×",
        "quick 0.750 1.500 2.67 3.00 (2.00…4.00) 3.00 1.00 GiB 1.00×",
    ]


def test_what_is_far_slower_than_the_baseline_is_measured_once(clock):
    steps = {"base": clock("b", 1, 1, 1), "slow": clock("s", 4), "fine": clock("f", 3, 3, 3)}
    _, slow, fine = compare(steps, CPU, 2, 1000)
    assert clock.order == ["b", "s", "f", "b", "f", "b", "f"]
    assert slow.ratios == [0.25]
    assert list(in_words([slow], 1))[2].endswith("over 3× the time: measured once")
    assert fine.note == ""


def test_compiling_is_no_step(clock):
    steps = {"base": clock("b", 1, 1), "compiled": clock("c", 100, 1, 0.5, compiles=True)}
    assert compare(steps, CPU, 1, 1000)[1].ratios == [2]


def test_nothing_is_begun_when_time_is_over(clock):
    steps = {"base": clock("b", 9, 6), "second": clock("s", 6, 6), "third": clock("t")}
    base, second, third = compare(steps, CPU, 5, 10)
    assert clock.order == ["b", "s", "b"]
    assert base.note == second.note == "measured once"
    assert base.ratios == second.ratios == [1]  # not 9/6: the first step of all is the slowest
    line = list(in_words([base, third], 1))[3]
    assert " ".join(line.split()) == "third not measured: --minutes are over"
    steps = {"base": clock("b", *[1] * 9), "second": clock("s", *[1] * 9)}
    assert [len(row.ratios) for row in compare(steps, CPU, 5, 7)] == [2, 2]


def test_a_variant_that_torch_refuses_is_a_line_and_a_baseline_an_error(clock):
    def refused():
        raise RuntimeError("DNNL does not support bf16\nat line 3")

    rows = compare({"base": clock("b", 1, 1), "half": Step(refused)}, CPU, 1, 1000)
    assert list(in_words(rows, 1))[3].endswith("fails: DNNL does not support bf16")
    with pytest.raises(UserError, match=r"the step of the base .* fails: DNNL does not support"):
        compare({"base": Step(refused)}, CPU, 1, 1000)


def test_rounds_that_were_measured_before_ctrl_c_are_kept(clock, capsys):
    def interrupted():
        if clock.order == ["b"] * 3:
            raise KeyboardInterrupt
        step.run()

    step = clock("b", 9, 1, 1)
    (base,) = compare({"base": Step(interrupted)}, CPU, 5, 1000)
    assert [seconds.wall for seconds in base.seconds] == [1, 1]
    assert "Interrupted" in capsys.readouterr().err
