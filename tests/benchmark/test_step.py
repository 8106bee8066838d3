import pytest
import torch

from deeplab_lit.benchmark import step as benchmark
from deeplab_lit.benchmark.__main__ import main
from deeplab_lit.benchmark.step import SWITCHES, Batch, our_step
from deeplab_lit.benchmark.turns import Row
from deeplab_lit.network.deeplab import DeepLabV2

TINY = ["--backbone=resnet10_quarter", "--norm=batch", "--scales=[1.0]", "--device=cpu"]


@pytest.fixture
def lines(capsys, monkeypatch):
    """What `benchmark step` prints with some options, on a processor that is fast in bfloat16."""

    def run(*options):
        main(["step", "--batch_size=1", "--crop_size=33", "--rounds=1", *TINY, *options])
        return capsys.readouterr().out.splitlines()

    monkeypatch.setattr(benchmark, "why_slow", lambda half, device, instead: None)
    return run


def test_step_measures_each_switch_beside_the_plain_port(lines):
    variants = ["plain", "channels_last", "amp", "amp+channels_last", "recompute"]
    title, _, _, *rows = lines(f"--variants={variants}")
    assert "1 image of 33×33, resnet10_quarter, aspp [6, 12, 18, 24], scales [1.0], CPU" in title
    assert [row[2:33].strip() for row in rows] == [
        "plain port, float32",
        "ours, plain",
        "ours, channels_last",
        "ours, bfloat16",
        "ours, bfloat16+channels_last",
        "ours, recompute",
    ]
    for row in rows:
        seconds, processor, rate, ratio, *_ = row[33:].split()
        assert float(seconds) > 0 < float(processor)
        assert float(rate) == pytest.approx(1 / float(seconds), rel=0.5)
        assert float(ratio) > 0
    assert "1.00 (1.00…1.00)" in rows[0]


def test_a_network_without_a_port_is_compared_with_itself(lines):
    options = ["--head=aspp_concat", "--variants=[plain,recompute]", "--batch_size=2"]
    _, note, _, _, *rows = lines(*options)
    assert "no plain port of the head aspp_concat: the comparison is with ours without" in note
    assert [row[2:33].strip() for row in rows] == ["ours, float32", "ours, recompute"]


def test_without_autocast_its_variants_are_left_out(lines):
    _, _, _, *rows = lines("--precision=float32", "--variants=[plain,amp,all]")
    assert [row[2:33].strip() for row in rows] == ["plain port, float32", "ours, plain"]


def test_half_precision_that_is_slow_is_said_before_the_first_step_and_comes_last(
    lines, monkeypatch
):
    order = []

    def compare(steps, *bounds):
        order.append([*steps])
        return [Row("base", [], [], None, "")]

    monkeypatch.setattr(benchmark, "why_slow", lambda *words: " ".join(map(str, words)))
    monkeypatch.setattr(benchmark, "compare", compare)
    said = lines("--variants=[amp,plain]")
    assert said[1] == "WARNING: torch.bfloat16 cpu --precision float32"
    assert order == [["plain port, float32", "ours, plain", "ours, bfloat16"]]
    assert not any("WARNING" in line for line in lines("--variants=[plain]"))


@pytest.mark.parametrize("name", ["plain", "channels_last", "amp+channels_last", "recompute"])
def test_every_switch_trains_the_same_network(name):
    torch.manual_seed(0)
    net = DeepLabV2(3, backbone="resnet10_quarter", atrous_rates=(1, 2), scales=(1.0, 0.5))
    batch = Batch.of_noise(net, 2, 33)
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    gradients = {}
    for switches in (SWITCHES["plain"], SWITCHES[name]):
        net.load_state_dict(weights)
        our_step(net, switches, torch.bfloat16, batch).run()
        gradients[switches] = [p.grad.clone() for p in net.parameters()]
    tolerance = 0.25 if SWITCHES[name].amp else 1e-5
    for plain, variant in zip(*list(gradients.values()) * (3 - len(gradients)), strict=True):
        assert (plain - variant).norm() <= tolerance * plain.norm()


def test_the_switches_reach_the_network():
    net = DeepLabV2(3, backbone="resnet10_quarter", atrous_rates=(1,), scales=(1.0,))
    step = our_step(net, SWITCHES["all"], torch.bfloat16, Batch.of_noise(net, 1, 33))
    assert step.compiles
    assert net.backbone.gradient_checkpointing
    assert net.memory_format == torch.channels_last
    assert net.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
