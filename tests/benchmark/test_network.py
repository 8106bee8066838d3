import re

import pytest
import torch

from deeplab_lit.benchmark import network as benchmark
from deeplab_lit.benchmark.__main__ import main
from deeplab_lit.benchmark.meter import Seconds
from deeplab_lit.cli.defaults import SHAPES
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.training.module import DeepLabModule

TINY = ["--backbone=resnet10_quarter", "--norm=batch", "--atrous_rates=[2,4]", "--scales=[1.0]"]


def output(capsys, *options):
    main(["network", *options])
    return capsys.readouterr().out


def test_the_papers_network_has_its_published_cost(capsys):
    text = output(capsys, "--size", "512", "1024", "--style=caffe", "--scales=[1.0]", "--rounds=0")
    assert "resnet101, aspp [6, 12, 18, 24]" in text
    assert "one image of 512×1024" in text
    assert "43,901,068, of which 43,795,724" in text
    assert "373.656 GMAC = 747.312 GFLOP" in text
    assert "torch.utils.flop_counter" in text
    assert "latency" not in text


def test_latency_and_frames_are_those_of_the_timed_passes(capsys, monkeypatch):
    seconds = iter([Seconds(0.1, 1), Seconds(0.1, 1), Seconds(0.4, 1)])
    monkeypatch.setattr(benchmark, "seconds_of", lambda one_pass: next(seconds))
    monkeypatch.setattr(benchmark, "peak_memory", lambda one_pass, device: 5 * 2**20)
    text = output(capsys, "--size", "33", "65", "--rounds=3", "--device=cpu", *TINY)
    assert "latency        200.00 ± 173.21 ms, median 100.00" in text
    assert "frames/s       5.00 as 1 / mean latency, 7.50 ± 4.33 as mean of 1 / latency" in text
    assert "5.0 MiB more at the peak of a pass" in text
    assert "3 passes after 4 that are not timed" in text


def test_a_pass_is_one_image_through_the_network():
    net = DeepLabV2(7, backbone="resnet10_quarter", norm="batch", scales=(1.0,)).eval()
    seen = []
    net.register_forward_hook(lambda module, args, out: seen.append((args[0].shape, out.dtype)))
    benchmark._pass(net, (33, 65), "float32")()
    assert seen == [(torch.Size([1, 3, 33, 65]), torch.float32)]


def test_memory_that_cannot_be_measured_is_left_out(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "peak_memory", lambda one_pass, device: None)
    text = output(capsys, "--size", "33", "33", "--rounds=1", "--device=cpu", *TINY)
    assert re.search(r"[\d.]+ MiB of weights, and what a pass takes is not known", text)


def test_a_configuration_says_what_the_network_is_and_options_win(capsys):
    config = f"--config={SHAPES}"
    text = output(capsys, "--size", "33", "33", config, "--rounds=0")
    assert "resnet10_quarter, aspp [2, 4, 6]" in text
    assert "7 classes" in text
    text = output(capsys, "--rounds=0", config, "--atrous_rates=[1]", "--num_classes=3")
    assert "aspp [1]" in text
    assert "3 classes" in text


def test_a_checkpoint_says_what_the_network_is(tmp_path, capsys):
    classes = {f"class {i}": (i, i, i) for i in range(5)}
    settings = {"backbone": "resnet10_quarter", "norm": "batch", "atrous_rates": (3,)}
    module = DeepLabModule(classes, weights="none", scales=(1.0, 0.5), **settings)
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(content | {"global_step": 1}, tmp_path / "best.ckpt")
    text = output(capsys, f"--ckpt_path={tmp_path / 'best.ckpt'}", "--rounds=0")
    assert "resnet10_quarter, aspp [3], output stride 8, torchvision, scales [1.0, 0.5]" in text
    assert "5 classes" in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", "161"], "--size [161]: expected a list of 2"),
        ([f"--config={SHAPES.with_name('camvid.yaml')}"], "does not tell how many classes"),
        (["--config={trainer: {max_steps: 1}}"], "it has neither a model nor data"),
        (["--ckpt_path=x.ckpt", "--backbone=vgg16"], "says what the network is: leave out --back"),
        (["--ckpt_path=x.ckpt", "--num_classes=7"], "leave out --num_classes"),
    ],
)
def test_what_says_no_network_or_two_is_refused(options, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["network", "--rounds=0", *options])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
