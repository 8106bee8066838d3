"""torchvision's classifiers give their own features."""

import pytest
import torch
import torchvision
from torch import nn

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.formats import read_source, recognize, translate
from deeplab_lit.network.weights.formats.source import count_pretraining_classes
from deeplab_lit.network.weights.formats.torchvision import from_torchvision
from deeplab_lit.network.weights.read import WeightsError
from deeplab_lit.network.weights.start import initialize

pytestmark = pytest.mark.usefixtures("undrawn")


def classifier(name):
    net = torchvision.models.get_model(name, weights=None).eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 2)
    return net


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
@torch.inference_mode()
def test_the_converted_backbone_takes_rgb_bytes_and_gives_the_classifiers_features(
    name, tmp_path, photo, close
):
    theirs = classifier(name)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    net = DeepLabV2(3, backbone=name, output_stride=32, atrous_rates=(1,), scales=(1.0,))
    source = initialize(net, str(tmp_path / "resnet.pth"))
    assert source.network["backbone"] == name
    features = nn.Sequential(*list(theirs.children())[:-2])
    for size in [(65, 97), (70, 84)]:
        image = photo(*size)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (image / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
        close(net.backbone(net.preprocess(image)), features(x))


def test_resnet101_has_520_tensors_without_classifier_and_counters():
    with torch.device("meta"):
        state = torchvision.models.resnet101(weights=None).state_dict()
    assert recognize(state) == "torchvision"
    source = from_torchvision(state)
    assert len(source.copied) == 520
    assert {key for key in source.skipped if "num_batches" not in key} == {"fc.weight", "fc.bias"}
    assert count_pretraining_classes(source, state) == 1000


def test_a_resnet_that_is_none_of_torchvisions_is_refused():
    with torch.device("meta"):
        state = torchvision.models.resnet18(weights=None).state_dict()
    state["layer4.2.conv1.weight"] = torch.empty(1)
    with pytest.raises(WeightsError, match="none of torchvision"):
        from_torchvision(state)


def test_an_unknown_name_is_refused():
    with torch.device("meta"):
        state = torchvision.models.resnet18(weights=None).state_dict()
    with pytest.raises(WeightsError, match=r"attention\.weight"):
        from_torchvision(state | {"attention.weight": torch.empty(1)})


def small_vgg(layers=(0, 3, 6)):
    state = {"features.0.weight": torch.ones(64, 3, 3, 3)}
    return state | {f"classifier.{i}.weight": torch.ones(2, 2) for i in layers}


def test_a_vgg_without_numbers_in_its_classifier_holds_caffes_features():
    """vgg16_features-amdegroot-88682ab5.pth"""
    state = small_vgg()
    assert from_torchvision(state).network["style"] == "torchvision"
    state["classifier.3.weight"][0, 1] = float("nan")
    with pytest.raises(WeightsError, match=r"amdegroot.*Caffe's.*vgg16-397923af\.pth"):
        from_torchvision(state)


def test_caffes_vgg_is_known_by_its_layout_and_renamed_by_its_file_name(tmp_path):
    """vgg16-00b39a1b.pth: classifier.1 and 4 instead of 0 and 3; many rename them."""
    with pytest.raises(WeightsError, match=r"jcjohnson.*vgg16-397923af\.pth"):
        from_torchvision(small_vgg((1, 4, 6)))
    torch.save(small_vgg(), tmp_path / "vgg16-00b39a1b.pth")
    with pytest.raises(WeightsError, match=r"00b39a1b\.pth: it holds Caffe's"):
        read_source(tmp_path / "vgg16-00b39a1b.pth")


def test_a_vgg_without_classifier_may_be_caffes_until_somebody_says_it_is_not():
    with pytest.raises(WeightsError, match=r"may be Caffe's .*--format torchvision"):
        recognize(small_vgg(()))
    assert translate(small_vgg(()), "torchvision").network["backbone"] == "vgg16"
