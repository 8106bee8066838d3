"""isht7's and AdaptSegNet's .pth files give their networks' logits."""

import pytest
import source_networks as theirs
import torch
from layouts import conv2d_list, torchvision_state

from deeplab_lit import convert
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.formats import read_source, recognize, translate
from deeplab_lit.network.weights.formats.isht7 import from_adaptsegnet
from deeplab_lit.network.weights.load import build, load
from deeplab_lit.network.weights.read import WeightsError
from deeplab_lit.network.weights.start import initialize

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def isht7(resnet101, tmp_path_factory):
    """MS_DeepLab_resnet_trained_VOC.pth, in PyTorch's old container, and without counters."""
    path = tmp_path_factory.mktemp("isht7") / "MS_DeepLab_resnet_trained_VOC.pth"
    state = torchvision_state(resnet101, prefix="Scale.")
    state |= conv2d_list("Scale.layer5", resnet101["head"])
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def multi_level(net, prefix=""):
    """A DeeplabMulti: an auxiliary head on layer3, the real one behind layer4."""
    state = torchvision_state(net, prefix=prefix, counters=True)
    state |= conv2d_list(f"{prefix}layer5", theirs.random_head(21, 1024))
    return state | conv2d_list(f"{prefix}layer6", net["head"])


@pytest.mark.parametrize("size", [65, 77, 85])
@torch.inference_mode()
def test_isht7_multi_scale_logits_are_its_own(isht7, resnet101, photo, close, size):
    net, image = load(isht7), photo(size, size)
    expected = theirs.isht7(resnet101, image)
    close(net.logits(image).fused, expected)
    close(net(image), theirs.interpolate(expected, (size, size), theirs.aligned))


def test_isht7_is_recognized_and_the_prefix_says_that_there_are_three_scales(isht7):
    source = read_source(isht7)
    assert source.format == "isht7"
    assert source.network["scales"] == (1.0, 0.75, 0.5)
    assert source.network["atrous_rates"] == (6, 12, 18, 24)
    assert len(source.copied) == 528


@pytest.mark.parametrize(("branches", "prefix"), [(2, ""), (4, "module.")])
@torch.inference_mode()
def test_adaptsegnet_logits_are_its_own_with_the_branches_that_were_trained(
    resnet101, photo, close, tmp_path, branches, prefix
):
    path = tmp_path / "GTA2Cityscapes_multi.pth"
    torch.save(multi_level(resnet101, prefix), path)
    source = read_source(path, branches=branches)
    assert source.format == "adaptsegnet"
    net = build(source, path).eval()
    assert len(net.head.branches) == branches
    for size in [(65, 97), (64, 86)]:
        image = photo(*size)
        expected = theirs.adaptsegnet(resnet101, image, branches=branches)
        close(net.logits(image).fused, expected)
        close(net(image), theirs.interpolate(expected, size, theirs.aligned))


def test_adaptsegnet_subtracts_another_mean_than_the_authors(resnet101):
    mean = from_adaptsegnet(multi_level(resnet101)).state["preprocess.mean"]
    assert mean.flatten().tolist() == pytest.approx([122.67891434, 116.66876762, 104.00698793])


def test_the_auxiliary_head_is_left_out_with_the_reason(resnet101):
    source = from_adaptsegnet(multi_level(resnet101))
    reasons = {v for k, v in source.skipped.items() if "layer5" in k}
    assert reasons == {"the auxiliary head on layer3, for training only"}
    assert torch.equal(source.state["head.branches.1.weight"], resnet101["head"][1][0])


def test_branches_that_were_never_trained_are_refused_until_somebody_says_how_many(resnet101):
    head = [(w, b) if i < 2 else (torch.randn_like(w) * 0.01, b)
            for i, (w, b) in enumerate(resnet101["head"])]  # fmt: skip
    state = multi_level(resnet101 | {"head": head})
    with pytest.raises(WeightsError, match=r"branches 3, 4 .*--branches 2"):
        from_adaptsegnet(state)
    assert from_adaptsegnet(state, 2).network["atrous_rates"] == (6, 12)
    assert from_adaptsegnet(state, 4).network["atrous_rates"] == (6, 12, 18, 24)


def test_the_published_file_has_the_two_branches_that_were_trained(resnet101, tmp_path):
    path = tmp_path / "GTA2Cityscapes_multi-ed35151c.pth"
    torch.save(multi_level(resnet101), path)
    assert read_source(path).network["atrous_rates"] == (6, 12)
    assert read_source(path, branches=4).network["atrous_rates"] == (6, 12, 18, 24)


@pytest.mark.parametrize("branches", [0, 5])
def test_more_branches_than_there_are_cannot_be_kept(resnet101, branches):
    with pytest.raises(WeightsError, match=f"--branches {branches}: the file has 4 branches"):
        from_adaptsegnet(multi_level(resnet101), branches)


def test_names_behind_no_prefix_or_another_one_are_refused(resnet101):
    state = multi_level(resnet101, "module.") | {"discriminator.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"discriminator\.weight.*--ignore"):
        translate(state)
    assert translate(state, ignore=["discriminator.weight"]).num_classes == 21


def test_torchvisions_names_without_any_head_may_be_either(resnet101):
    state = torchvision_state(resnet101)
    with pytest.raises(WeightsError, match=r"--format torchvision .* or --format adaptsegnet"):
        recognize(state)
    assert from_adaptsegnet(state).num_classes is None


@pytest.mark.parametrize("classifier", [False, True])
def test_advsemisegs_init_is_known_by_its_name_to_hold_caffes_values(
    resnet101, tmp_path, classifier
):
    state = torchvision_state(resnet101)
    if classifier:
        state |= {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    path = tmp_path / "resnet101COCO-41f33a49.pth"
    torch.save(state, path)
    net = DeepLabV2(3, style="caffe")
    source = initialize(net, str(path))
    assert (source.format, source.network["style"]) == ("adaptsegnet", "caffe")
    assert torch.equal(net.backbone.conv1.weight, resnet101["conv1"][0].flip(1))
    assert len(source.copied) == 520
    with pytest.raises(WeightsError, match=r"--model\.style caffe"):
        initialize(DeepLabV2(3, style="torchvision"), str(path))
    with pytest.raises(WeightsError, match=r"--model\.weights"):
        load(path)


def test_what_convert_made_of_it_may_keep_its_name(resnet101, tmp_path):
    path, out = (tmp_path / f"resnet101COCO-41f33a49.{suffix}" for suffix in ("pth", "ckpt"))
    torch.save(torchvision_state(resnet101), path)
    convert.main([str(path), str(out)])
    net = DeepLabV2(3, style="caffe")
    assert initialize(net, str(out)).format == "deeplab_lit"
    assert torch.equal(net.backbone.conv1.weight, resnet101["conv1"][0].flip(1))


def test_adaptsegnets_init_has_isht7s_layout_and_starts_a_training(resnet101, tmp_path):
    """DeepLab_resnet_pretrained_init-f81d91e8.pth; its loader leaves Scale.layer5 out."""
    path = tmp_path / "DeepLab_resnet_pretrained_init-f81d91e8.pth"
    state = torchvision_state(resnet101, prefix="Scale.")
    fresh = [(torch.randn_like(w) * 0.01, torch.zeros_like(b)) for w, b in resnet101["head"]]
    torch.save(state | conv2d_list("Scale.layer5", fresh), path)
    net = DeepLabV2(19, style="caffe")
    initialize(net, str(path))
    assert torch.equal(net.backbone.layer4[2].conv3.weight, resnet101["5c_branch2c"][0])
    with pytest.raises(WeightsError, match=r"never trained: there is nothing to evaluate.*weights"):
        load(path)
