"""torchvision's ImageNet weights: from the folder of downloads, or from the network."""

from urllib.error import URLError

import pytest
import torch
import torchvision

from deeplab_lit.network.weights.imagenet import imagenet_file, imagenet_source
from deeplab_lit.network.weights.read import WeightsError


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """An empty download folder and no network."""

    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "hub"))


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
