"""Weight files: what fits is loaded exactly, what does not is refused in a sentence."""

import random
import warnings
from urllib.error import URLError

import pytest
import torch
import torchvision
from own_files import CLASSES, build, lightning_checkpoint, same, save
from torch import nn
from torchvision.models import WeightsEnum

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.load import WeightsError
from deeplab_lit.network.weights.start import (
    differences,
    imagenet_file,
    imagenet_source,
    initialize,
    is_reordered,
    moved,
)

RESNET18 = {"backbone": "resnet18", "norm": "frozen", "atrous_rates": (1,), "scales": (1.0,)}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """A seed, an empty download folder and no network."""

    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    torch.manual_seed(0)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "hub"))


@pytest.mark.parametrize("kind", ["checkpoint", "state dict"])
def test_training_may_start_from_a_trained_network(tmp_path, kind):
    trained, net = build(), build()
    path = tmp_path / "start.ckpt"
    if kind == "checkpoint":
        lightning_checkpoint(trained, path)
    else:
        save(trained.state_dict(), path)
    assert not same(net, trained.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        initialize(net, str(path))
    assert same(net, trained.state_dict())


@pytest.mark.parametrize(("trained", "own"), [("batch", "frozen"), ("frozen", "batch")])
@torch.no_grad()
def test_weights_move_between_frozen_and_trainable_normalization(tmp_path, trained, own):
    source, net = build(norm=trained), build(norm=own)
    initialize(net, str(save(source.state_dict(), tmp_path / "start.pth")))
    images = torch.randint(0, 256, (1, 3, 33, 33), dtype=torch.uint8)
    torch.testing.assert_close(net(images), source(images))


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 7},
        {"atrous_rates": (1, 2, 3)},
        {"atrous_rates": (1,)},
        {"head": "aspp_concat"},
    ],
    ids=str,
)
def test_a_head_that_does_not_fit_is_left_out_with_a_warning(tmp_path, arguments):
    trained, net = build(**arguments), build()
    head = {k: v.clone() for k, v in net.head.state_dict().items()}
    path = save(trained.state_dict(), tmp_path / "start.pth")
    with pytest.warns(UserWarning, match=r"start\.pth: its head does not fit; only the backbone"):
        initialize(net, str(path))
    assert same(net.backbone, trained.backbone.state_dict())
    assert same(net.head, head)


def test_another_backbone_is_refused_and_changes_nothing(tmp_path):
    net = build()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    path = save(build(backbone="resnet18").state_dict(), tmp_path / "start.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(WeightsError, match=r"start\.pth does not fit"):
            initialize(net, str(path))
    assert same(net, before)


@pytest.mark.parametrize(
    "ours", [["background", "dog", "cat"], ["Dog", "background", "Cat"]], ids=str
)
def test_a_head_for_the_same_classes_in_another_order_is_refused(tmp_path, ours):
    path = lightning_checkpoint(build(), tmp_path / "start.ckpt")
    net = build()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(WeightsError, match=f"start.ckpt .* another order .* → {ours[1]}"):
        initialize(net, str(path), ours)
    assert same(net, before)


def test_a_head_for_classes_at_other_indices_is_left_out_and_that_is_said(tmp_path):
    trained, net = build(), build()
    head = {k: v.clone() for k, v in net.head.state_dict().items()}
    path = lightning_checkpoint(trained, tmp_path / "start.ckpt")
    with pytest.warns(UserWarning, match="0: background → cat, .* left out and starts anew"):
        initialize(net, str(path), ["cat", "dog", "bird"])
    assert same(net.backbone, trained.backbone.state_dict())
    assert same(net.head, head)


@pytest.mark.parametrize("ours", [["Hintergrund", "cat", "dog"], ["x", "y", "z"]], ids=str)
def test_a_head_for_classes_of_other_names_is_kept_and_that_is_said(tmp_path, ours):
    trained, net = build(), build()
    path = lightning_checkpoint(trained, tmp_path / "start.ckpt")
    with pytest.warns(UserWarning, match=f"0: background → {ours[0]}.* head is kept"):
        initialize(net, str(path), ours)
    assert same(net, trained.state_dict())


def test_of_classes_with_the_same_names_nothing_is_said(tmp_path):
    path = lightning_checkpoint(build(), tmp_path / "start.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        initialize(build(), str(path), CLASSES)


@pytest.mark.parametrize("num_classes", [3, 7])
@pytest.mark.parametrize("kind", ["checkpoint", "state dict"])
def test_a_trained_network_of_the_other_style_is_refused(tmp_path, kind, num_classes):
    trained, path = build(style="caffe"), tmp_path / "start.ckpt"
    if kind == "checkpoint":
        lightning_checkpoint(trained, path, style="caffe")
    else:  # its preprocessing tells
        save(trained.state_dict(), path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(WeightsError, match=r"--model\.style caffe"):
            initialize(build(num_classes, style="torchvision"), str(path))


@torch.no_grad()
def test_a_torchvision_resnet_gives_its_features(tmp_path):
    classifier = torchvision.models.resnet18(weights=None).eval()
    classifier.bn1.running_mean.normal_()
    net = DeepLabV2(3, output_stride=32, **RESNET18)
    initialize(net, str(save(classifier.state_dict(), tmp_path / "resnet18.pth")))
    x = torch.randn(1, 3, 65, 97)
    features = nn.Sequential(*list(classifier.children())[:-2])
    torch.testing.assert_close(net.backbone(x), features(x))


def test_a_backbone_brings_its_own_mean_along(tmp_path):
    """AdaptSegNet subtracts a little less than the authors."""
    trained, net = build(num_classes=7, style="caffe"), build(style="caffe")
    trained.preprocess.mean += 0.004
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        initialize(net, str(save(trained.state_dict(), tmp_path / "start.pth")))
    assert torch.equal(net.preprocess.mean, trained.preprocess.mean)


def test_torchvision_weights_are_refused_in_a_caffe_network(tmp_path):
    path = save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    with pytest.raises(WeightsError, match=r"r18\.pth.*--model\.style torchvision, not caffe"):
        initialize(DeepLabV2(3, style="caffe", **RESNET18), str(path))


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_a_torchvision_file_of_another_depth_is_refused(tmp_path, name):
    path = save(torchvision.models.get_model(name, weights=None).state_dict(), tmp_path / "r.pth")
    with pytest.raises(WeightsError, match=r"r\.pth does not fit"):
        initialize(DeepLabV2(3, **RESNET18), str(path))


def test_random_weights_need_a_normalization_that_trains():
    with pytest.raises(WeightsError, match=r"--model\.norm batch"):
        initialize(build(norm="frozen"), "none")
    net = build(norm="batch")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    initialize(net, "none")
    assert same(net, before)


def test_vgg_has_no_normalization_and_may_start_from_random_weights():
    with torch.device("meta"):
        net = DeepLabV2(3, backbone="vgg16", norm="frozen")
    initialize(net, "none")


def test_imagenet_is_refused_in_a_caffe_network_before_anything_is_downloaded():
    with pytest.raises(WeightsError, match=r"--model\.style torchvision"):
        initialize(DeepLabV2(3, style="caffe", **RESNET18), "imagenet")


def test_vgg_fc6_and_fc7_are_decimated_into_every_branch(monkeypatch):
    with torch.device("meta"):
        net = DeepLabV2(3, backbone="vgg16", head="aspp", atrous_rates=(6, 12))
    net = net.to_empty(device="cpu")
    state = {k: torch.randn(v.shape) for k, v in net.backbone.state_dict().items()}
    state["classifier.0.weight"] = torch.randint(-9, 9, (4096, 25088), dtype=torch.int8)
    state["classifier.0.bias"] = torch.randn(4096)
    state["classifier.3.weight"] = torch.randint(-9, 9, (4096, 4096), dtype=torch.int8)
    state["classifier.3.bias"] = torch.randn(4096)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *args, **kwargs: state)
    initialize(net, "imagenet")
    assert torch.equal(net.backbone.features[28].weight, state["features.28.weight"])
    draw = random.Random(0)
    for branch in net.head.branches:
        for _ in range(500):
            f, c, y, x = (draw.randrange(n) for n in (1024, 512, 3, 3))
            # a row holds channel after channel, each 7×7 in reading order
            theirs = state["classifier.0.weight"][4 * f, 49 * c + 7 * (3 * y) + 3 * x]
            assert branch.fc6.weight[f, c, y, x] == theirs
            g = draw.randrange(1024)
            assert branch.fc7.weight[f, g, 0, 0] == state["classifier.3.weight"][4 * f, 4 * g]
            assert branch.fc6.bias[f] == state["classifier.0.bias"][4 * f]
            assert branch.fc7.bias[f] == state["classifier.3.bias"][4 * f]


def small_vgg(num_classes, rates):
    with torch.device("meta"):
        net = DeepLabV2(num_classes, backbone="vgg16", atrous_rates=rates, style="caffe")
    net = net.to_empty(device="cpu")
    net.load_state_dict({k: torch.zeros_like(v) for k, v in net.state_dict().items()})
    net.preprocess.std.fill_(1)
    return net


def test_vggs_fc6_and_fc7_come_along_where_only_the_classes_differ(tmp_path):
    trained, net = small_vgg(21, (6, 12)), small_vgg(3, (6, 12))
    trained.head.branches[1].fc6.weight.data.fill_(2)
    trained.head.branches[1].fc8.weight.data.fill_(3)
    path = save(trained.state_dict(), tmp_path / "vgg.pth")
    with pytest.warns(UserWarning, match="the backbone, fc6 and fc7 are loaded"):
        initialize(net, str(path))
    assert (net.head.branches[1].fc6.weight == 2).all()
    assert (net.head.branches[1].fc8.weight == 0).all()


def test_fc6_and_fc7_of_a_file_without_classifier_go_into_every_branch(tmp_path):
    """vgg16_20M.caffemodel: one fc6 and one fc7, for as many rates as there are."""
    trained, net = small_vgg(21, (12,)), small_vgg(3, (6, 12, 18))
    trained.head.branches[0].fc7.bias.data.fill_(2)
    state = {k: v for k, v in trained.state_dict().items() if "fc8" not in k}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        initialize(net, str(save(state, tmp_path / "vgg16_20M.pth")))
    assert all((branch.fc7.bias == 2).all() for branch in net.head.branches)


@pytest.mark.parametrize(
    ("name", "there", "here"),
    [
        ("atrous_rates", [2, 4], (12, 24)),
        ("align_corners", False, True),
        ("output_stride", 8, 16),
    ],
)
def test_weights_of_another_setting_but_equal_shapes_are_told_of(tmp_path, name, there, here):
    settings = {"backbone": "resnet10_quarter", "norm": "batch", "atrous_rates": [12, 24]}
    net = DeepLabV2(2, **settings | {name: there})
    hyper_parameters = settings | {name: there, "classes": {"a": (0, 0, 0), "b": (1, 1, 1)}}
    state = {f"net.{key}": value for key, value in net.state_dict().items()}
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": hyper_parameters, "global_step": 1}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        initialize(DeepLabV2(2, **settings | {name: there}), str(path))
    with pytest.warns(UserWarning, match=f"was trained with {name} .* this network has"):
        initialize(DeepLabV2(2, **settings | {name: here}), str(path))


def test_a_head_whose_classes_are_not_named_is_kept_and_that_is_said(tmp_path):
    trained, net = build(), build()
    torch.save(trained.state_dict(), tmp_path / "start.pth")
    with pytest.warns(UserWarning, match="does not name its classes: its head is kept"):
        initialize(net, str(tmp_path / "start.pth"), ["a", "b", "c"])
    assert same(net, trained.state_dict())


def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(tmp_path):
    with pytest.raises(WeightsError, match=r"resnet18.*no route to host") as error:
        imagenet_source("resnet18")
    place = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(error.value)
    assert str(place) in str(error.value)
    assert imagenet_file("resnet18")[0] == place
    place.parent.mkdir(parents=True, exist_ok=True)  # and so it works
    classifier = torchvision.models.resnet18(weights=None)
    torch.save(classifier.state_dict(), place)
    state = imagenet_source("resnet18").state
    assert torch.equal(state["backbone.layer4.1.conv2.weight"], classifier.layer4[1].conv2.weight)


def test_a_file_there_that_holds_no_weights_is_refused(tmp_path):
    place = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    place.parent.mkdir(parents=True)
    place.write_text("<html><body>404</body></html>")
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth"):
        imagenet_source("resnet18")


def test_a_backbone_without_such_weights_is_refused():
    with pytest.raises(WeightsError, match="resnet10_quarter"):
        imagenet_source("resnet10_quarter")


def test_only_classes_at_other_indices_have_moved():
    assert not moved(["a", "b"], ["a", "c"])
    assert not moved(["a", "b"], ["x", "y"])
    assert moved(["a", "b", "c"], ["b", "x", "y"])
    assert moved(["a", "b"], ["background", "a"])


def test_spelling_is_no_difference():
    assert differences(["Traffic light", "dining-table"], ["traffic_light", "dining table"]) == ""
    assert moved(["Road", "Car"], ["car", "road"])


def test_names_that_only_their_spelling_tells_apart_are_apart():
    names = ["a", "A", "b"]
    assert not moved(names, names)
    assert differences(names, ["A", "a", "b"]) == "0: a → A, 1: A → a"


def test_what_differs_is_shown_and_not_the_first_names():
    assert differences("xabcd", "xabdc") == "3: c → d, 4: d → c"
    assert differences("ab", "abc") == "2: (none) → c"
    assert differences("abcdefg", "ABCDEFG") == ""
    assert differences("abcdefg", "hijklmn").endswith("4: e → l, and 2 more")


def test_the_same_classes_in_another_order_are_told_from_others():
    assert is_reordered("abc", "acb")
    assert is_reordered(["Road", "car"], ["Car", "road"])
    assert not is_reordered("abc", "abc")
    assert not is_reordered("abc", "bcd")


def test_training_starts_from_the_auxiliary_head_of_a_file_that_has_one(tmp_path):
    trained, net = build(aux_head=True), build(aux_head=True)
    path = lightning_checkpoint(trained, tmp_path / "multi.ckpt", aux_head=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        initialize(net, str(path))
        initialize(single := build(), str(path))
    assert same(net, trained.state_dict())
    assert same(single, {k: v for k, v in trained.state_dict().items() if "aux_head" not in k})


def test_an_auxiliary_head_that_no_file_has_starts_anew_and_that_is_said(tmp_path):
    trained, net = build(), build(aux_head=True)
    initial = net.aux_head.branches[0].weight.clone()
    path = lightning_checkpoint(trained, tmp_path / "single.ckpt")
    with pytest.warns(UserWarning, match="no auxiliary head that fits: the network's starts anew"):
        initialize(net, str(path))
    assert net.aux_head.branches[0].weight.equal(initial)
    assert net.head.branches[0].weight.equal(trained.head.branches[0].weight)


def test_with_other_classes_neither_head_is_taken(tmp_path):
    path = lightning_checkpoint(build(aux_head=True), tmp_path / "multi.ckpt", aux_head=True)
    net = build(4, aux_head=True)
    initial = net.aux_head.branches[0].weight.clone()
    with pytest.warns(UserWarning, match="its head does not fit; only the backbone is"):
        initialize(net, str(path))
    assert net.aux_head.branches[0].weight.equal(initial)


def test_random_weights_are_normalized_with_a_fixed_affine_too():
    net = build(norm="frozen_affine")
    assert initialize(net, "none") is None
