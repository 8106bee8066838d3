"""Trained networks come back as they were, and what is none is refused in a sentence."""

import pytest
import torch
from own_files import CLASSES, build, lightning_checkpoint, same, save
from torch import nn

from deeplab_lit import export
from deeplab_lit.network.weights.load import WeightsError, load, load_strictly, read_checkpoint
from deeplab_lit.network.weights.start import initialize


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"style": "caffe", "norm": "frozen", "align_corners": False, "scales": [1.0, 0.5]},
        {"head": "aspp_concat", "output_stride": 16, "atrous_rates": [3, 4], "channels_last": True},
    ],
    ids=str,
)
@torch.no_grad()
def test_load_gives_the_network_that_was_trained(tmp_path, arguments):
    net = build(**arguments)
    loaded = load(lightning_checkpoint(net, tmp_path / "last.ckpt", **arguments))
    images = torch.randint(0, 256, (2, 3, 41, 33), dtype=torch.uint8)
    assert not loaded.training
    assert loaded.classes == CLASSES
    assert same(loaded, net.state_dict())
    assert torch.equal(loaded(images), net(images))


def test_load_takes_a_path_as_text_and_colors_as_lists(tmp_path):
    path = lightning_checkpoint(
        build(), tmp_path / "last.ckpt", classes={n: list(c) for n, c in CLASSES.items()}
    )
    assert load(str(path)).classes == CLASSES
    assert read_checkpoint(str(path))["global_step"] == 20


def test_load_refuses_weights_that_do_not_fit_their_own_settings(tmp_path):
    path = lightning_checkpoint(build(), tmp_path / "last.ckpt", atrous_rates=(1, 2, 3))
    with pytest.raises(WeightsError, match=r"last\.ckpt does not fit.*missing head\.branches\.2"):
        load(path)


def unknown_names(path):
    save({"encoder.weight": torch.zeros(2)}, path)


def web_page(path):
    path.write_text("\n<!DOCTYPE html>\n<html><body>404</body></html>")


@pytest.mark.parametrize("write", [unknown_names, web_page])
@pytest.mark.parametrize(
    "use", [load, read_checkpoint, lambda path: initialize(build(), str(path))]
)
def test_a_file_that_holds_no_weights_of_ours_is_refused_by_name(tmp_path, write, use):
    path = tmp_path / "model.pth"
    write(path)
    with pytest.raises(WeightsError) as error:
        use(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_values_that_are_not_finite_are_refused_by_name_and_nothing_is_loaded(value):
    net = nn.Linear(2, 3)
    before = net.weight.detach().clone()
    state = {"weight": torch.zeros(3, 2), "bias": torch.tensor([0, float(value), 0])}
    with pytest.raises(WeightsError, match=r"some\.pth holds values that are not finite.* bias"):
        load_strictly(net, state, "some.pth")
    assert torch.equal(net.weight, before)


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.float8_e4m3fn], ids=str)
def test_numbers_of_8_bits_are_refused_by_name(dtype):
    state = {"weight": torch.zeros(3, 2), "bias": torch.ones(3).to(dtype)}
    with pytest.raises(WeightsError, match=r"some\.pth holds bias as float8_e.*expected float32"):
        load_strictly(nn.Linear(2, 3), state, "some.pth")


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


def test_a_network_is_loaded_without_its_auxiliary_head(tmp_path):
    trained = build(aux_head=True, norm="frozen_affine")
    facts = {"aux_head": True, "norm": "frozen_affine"}
    path = lightning_checkpoint(trained, tmp_path / "multi.ckpt", **facts)
    net = load(path)
    assert net.aux_head is None
    assert net.norm == "frozen_affine"
    without = {k: v for k, v in trained.state_dict().items() if not k.startswith("aux_head.")}
    assert same(net, without | {k: v for k, v in net.state_dict().items() if "num_batches" in k})
    assert read_checkpoint(path)["hyper_parameters"]["aux_head"]  # to go on with
    out = tmp_path / "net.safetensors"
    export.main([f"--ckpt_path={path}", f"--out={out}"])
    assert same(load(out), net.state_dict())


def test_an_auxiliary_head_that_a_checkpoint_only_claims_is_refused(tmp_path):
    path = lightning_checkpoint(build(), tmp_path / "multi.ckpt", aux_head=True)
    with pytest.raises(WeightsError, match=r"missing aux_head\.branches\.0\.bias"):
        read_checkpoint(path)
