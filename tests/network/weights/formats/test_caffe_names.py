"""The authors' .caffemodel files give the authors' logits."""

import pytest
import source_networks as theirs
import torch
from caffe_writer import write_caffemodel
from layouts import FACTOR, caffe_layers

from deeplab_lit.network.deeplab import STATISTICS
from deeplab_lit.network.weights.formats import read_source, translate
from deeplab_lit.network.weights.formats.caffe_names import from_caffe
from deeplab_lit.network.weights.formats.source import count_pretraining_classes
from deeplab_lit.network.weights.load import load
from deeplab_lit.network.weights.read import WeightsError

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def released(resnet101, tmp_path_factory):
    """train_iter_20000.caffemodel: three scales."""
    folder = tmp_path_factory.mktemp("caffe")
    return write_caffemodel(folder / "train_iter_20000.caffemodel", caffe_layers(resnet101))


@pytest.fixture(scope="module")
def net(released):
    return load(released)


@pytest.mark.parametrize("size", [(65, 97), (97, 65)], ids=str)
@torch.inference_mode()
def test_multi_scale_logits_are_caffes(net, resnet101, photo, close, size):
    """At 32k + 1 pixels: elsewhere the authors' network does not exist (Eltwise needs one size)."""
    image = photo(*size)
    expected = theirs.caffe_resnet101(resnet101, image, multi_scale=True)
    close(net.logits(image).fused, expected)
    close(net(image), theirs.caffe_interp(expected, zoom=8))


@pytest.mark.parametrize("size", [(65, 97), (70, 83), (64, 96)], ids=str)
@torch.inference_mode()
def test_logits_of_a_single_scale_are_caffes(net, resnet101, photo, close, size):
    image = photo(*size)
    expected = theirs.caffe_resnet101(resnet101, image, multi_scale=False)
    close(net.logits(image, (1.0,)).fused, expected)
    close(net(image, (1.0,)), theirs.interpolate(expected, size, theirs.aligned))


def test_the_copies_for_the_other_scales_say_that_there_are_three(released, resnet101):
    source = read_source(released)
    assert source.format == "caffe"
    assert source.network["scales"] == (1.0, 0.75, 0.5)
    assert source.num_classes == 21
    assert len(source.skipped) == 10
    alone = from_caffe(read_blobs(caffe_layers(resnet101, multi_scale=False)))
    assert alone.network["scales"] == (1.0,)
    assert not alone.skipped


def read_blobs(layers):
    return {f"{name}/{i}": blob for name, blobs in layers.items() for i, blob in enumerate(blobs)}


def test_it_fills_the_520_tensors_of_the_backbone_and_the_8_of_the_head(released, resnet101):
    assert len(caffe_layers(resnet101, multi_scale=False)) == 312 + 4
    state = read_source(released).state
    assert sum(key.startswith("backbone.") for key in state) == 520
    assert sum(key.startswith("head.") for key in state) == 8
    assert len(state) == 520 + 8 + 2  # mean and std


def test_a_head_of_another_data_set_is_taken_under_its_own_name(resnet101):
    layers = caffe_layers(resnet101, multi_scale=False, head="fc1_cocostuff")
    source = from_caffe(read_blobs(layers))
    assert source.num_classes == 21
    assert torch.equal(source.state["head.branches.3.weight"], resnet101["head"][3][0])


def test_the_init_files_coco_classifier_is_left_out_with_the_reason(resnet101):
    layers = caffe_layers({k: v for k, v in resnet101.items() if k != "head"}, multi_scale=False)
    layers["fc1_coco"] = [torch.randn(91, 2048, 1, 1), torch.randn(91)]
    blobs = read_blobs(layers)
    source = from_caffe(blobs)
    assert source.num_classes is None
    assert count_pretraining_classes(source, blobs) == 91
    assert not [key for key in source.state if key.startswith("head.")]
    assert source.skipped == dict.fromkeys(
        ["fc1_coco/0", "fc1_coco/1"], "the classifier of the pretraining"
    )


def test_statistics_are_divided_by_their_factor_and_zero_means_zero(resnet101):
    blobs = read_blobs(caffe_layers(resnet101, multi_scale=False))
    blobs["bn2a_branch1/2"] = torch.zeros(1)
    state = from_caffe(blobs).state
    assert torch.equal(state["backbone.layer1.0.downsample.1.running_var"], torch.zeros(256))
    assert torch.equal(state["backbone.layer1.0.downsample.1.running_mean"], torch.zeros(256))
    mean = state["backbone.bn1.running_mean"]
    torch.testing.assert_close(mean, blobs["bn_conv1/0"] / FACTOR)


def test_blobs_of_old_files_have_four_dimensions(resnet101, tmp_path):
    layers = caffe_layers(resnet101, multi_scale=False)
    path = write_caffemodel(tmp_path / "old.caffemodel", layers, legacy=True)
    state = read_source(path).state
    assert state["backbone.bn1.running_var"].shape == (64,)
    assert torch.equal(state["head.branches.2.bias"], resnet101["head"][2][1])


def test_rgb_instead_of_bgr_and_the_authors_mean(resnet101):
    state = from_caffe(read_blobs(caffe_layers(resnet101))).state
    assert torch.equal(state["backbone.conv1.weight"][:, 0], resnet101["conv1"][0][:, 2])
    assert tuple(state["preprocess.mean"].flatten().tolist()) == pytest.approx(
        STATISTICS["caffe"][0]
    )


def test_a_layer_that_is_not_known_is_refused_unless_it_is_named(resnet101):
    blobs = read_blobs(caffe_layers(resnet101)) | {"attention1/0": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"attention1/0.*--ignore"):
        from_caffe(blobs)
    for name in ("attention1/0", "attention1"):
        source = translate({"state_dict": blobs}, ignore=[name])
        assert source.skipped["attention1/0"] == "ignored, as asked"


@pytest.mark.parametrize("index", [0, 1, 2])
def test_statistics_and_their_factor_are_left_out_together_or_not_at_all(resnet101, index):
    """Without its factor a mean would be taken for another, a thousand times as large."""
    blobs = read_blobs(caffe_layers(resnet101, multi_scale=False))
    with pytest.raises(WeightsError, match=rf"bn_conv1/{index} is missing.*--ignore bn_conv1\)"):
        translate({"state_dict": blobs}, ignore=[f"bn_conv1/{index}"])
    del blobs[f"bn_conv1/{index}"]
    with pytest.raises(WeightsError, match="fetch the file again"):
        from_caffe(blobs)
    blobs = read_blobs(caffe_layers(resnet101, multi_scale=False))
    source = translate({"state_dict": blobs}, ignore=["bn_conv1"])
    left_out = {"backbone.bn1.running_mean", "backbone.bn1.running_var"}
    assert set(from_caffe(blobs).state) - set(source.state) == left_out


@pytest.mark.parametrize("branches", [1, 4], ids=["LargeFOV", "ASPP-L"])
@torch.inference_mode()
def test_vgg16_logits_are_caffes(branches, tmp_path, photo, close):
    source = theirs.random_vgg16(branches=branches)
    net = load(write_caffemodel(tmp_path / "vgg.caffemodel", source))
    assert net.scales == (1.0,)
    for size in [(65, 49), (64, 50)]:
        image = photo(*size)
        expected = theirs.caffe_vgg16(source, image)
        close(net.logits(image).fused, expected)
        close(net(image), theirs.interpolate(expected, size, theirs.aligned))


def test_an_init_without_fc8_has_one_branch_and_no_classes():
    blobs = read_blobs(theirs.random_vgg16(branches=1))
    source = from_caffe({k: v for k, v in blobs.items() if "fc8" not in k})
    assert source.num_classes is None
    heads = {key for key in source.state if key.startswith("head.")}
    assert heads == {f"head.branches.0.fc{i}.{w}" for i in (6, 7) for w in ("weight", "bias")}
