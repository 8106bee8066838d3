"""kazuto1011's .pth files give its network's logits."""

import pytest
import source_networks as theirs
import torch
from layouts import kazuto1011_state

import deeplab_lit
from deeplab_lit import VOC
from deeplab_lit.network.weights.fetch import weight_file
from deeplab_lit.network.weights.formats import read_source, translate
from deeplab_lit.network.weights.formats.kazuto1011 import from_kazuto1011
from deeplab_lit.network.weights.load import load
from deeplab_lit.network.weights.read import WeightsError
from deeplab_lit.runs.conversion import read_trained
from deeplab_lit.runs.provenance import Provenance, quoted_of

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def net(resnet101, tmp_path_factory):
    path = tmp_path_factory.mktemp("kaz") / "deeplabv2_resnet101_msc-vocaug-20000.pth"
    torch.save(kazuto1011_state(resnet101), path)
    return load(path)


@pytest.mark.parametrize("size", [(65, 97), (70, 83), (64, 96)], ids=str)
@pytest.mark.parametrize("multi_scale", [True, False])
@torch.inference_mode()
def test_logits_are_its_own(net, resnet101, photo, close, size, multi_scale):
    image = photo(*size)
    expected = theirs.kazuto1011(resnet101, image, multi_scale=multi_scale)
    scales = None if multi_scale else (1.0,)
    close(net.logits(image, scales).fused, expected)
    close(net(image, scales), theirs.interpolate(expected, size, theirs.half_pixel))


def test_a_multi_scale_file_has_632_keys_and_the_converted_init_626(resnet101):
    state = kazuto1011_state(resnet101)
    assert len(state) == 632
    source = from_kazuto1011(state)
    assert (len(source.copied), len(source.skipped)) == (528, 104)
    body = {key: value for key, value in resnet101.items() if key != "head"}
    init = kazuto1011_state(body, base="")
    init |= {"fc.weight": torch.zeros(91, 2048, 1, 1), "fc.bias": torch.zeros(91)}
    assert len(init) == 626
    source = from_kazuto1011(init)
    assert source.num_classes is None
    assert source.skipped["fc.weight"] == "the classifier of the pretraining"
    assert translate(init).pretraining_classes == 91
    assert len(source.copied) == 520


def test_without_the_prefix_it_is_a_single_scale(resnet101):
    source = from_kazuto1011(kazuto1011_state(resnet101, base="", counters=False))
    assert source.network["scales"] == (1.0,)
    assert source.num_classes == 21


def test_coco_stuffs_file_is_read_with_its_182_classes_and_known_by_its_name(resnet101, tmp_path):
    path = tmp_path / "deeplabv2_resnet101_msc-cocostuff164k-100000.pth"
    torch.save(kazuto1011_state(resnet101 | {"head": theirs.random_head(182, 2048)}), path)
    source = read_source(path)
    assert (source.format, source.num_classes, len(source.copied)) == ("kazuto1011", 182, 528)
    assert source.state["head.branches.3.weight"].shape == (182, 2048, 3, 3)
    found = Provenance.from_file(path, source)
    assert (found.init, found.trained_on) == ("coco", ("CocoStuff164k:train",))


def test_by_its_name_the_file_is_downloaded_and_scored_as_what_it_is(
    resnet101, server, tmp_path, monkeypatch
):
    """The network that the file by itself gives, and its score where it was published."""
    file = "deeplabv2_resnet101_msc-vocaug-20000.pth"
    torch.save(kazuto1011_state(resnet101), server.folder / file)
    monkeypatch.setenv("DEEPLAB_LIT_MIRROR", server.url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    net = deeplab_lit.load("kazuto1011/voc12")
    expected = load(server.folder / file).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in net.state_dict().items())
    assert list(net.classes) == list(VOC.classes)
    checkpoint = read_trained(weight_file("kazuto1011/voc12"))
    assert checkpoint["hyper_parameters"]["classes"].keys() == VOC.classes.keys()
    found = Provenance.from_checkpoint(checkpoint)
    assert (found.source, found.init, found.trained_on) == (file, "coco", ("VOC:train_aug",))
    source = translate(checkpoint)
    assert quoted_of(found, source, 0).in_words() == "VOC val 76.65 (its README)"
    assert quoted_of(found, source, 20) is None  # trained on since
    assert len(server.requests) == 1


def test_an_unknown_name_is_refused_unless_it_is_named(resnet101):
    state = kazuto1011_state(resnet101) | {"base.aspp.c4.weight": torch.zeros(1)}
    assert translate(state, ignore=["base.aspp.c4.weight"]).num_classes == 21
    state["base.layer6.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"base\.layer6\.weight.*--ignore"):
        translate(state, ignore=["base.aspp.c4.weight"])
