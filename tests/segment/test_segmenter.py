import numpy as np
import pytest
import torch

from deeplab_lit.crf import DenseCRF
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.inference import Inference
from deeplab_lit.segment.segmenter import Segmenter


@pytest.fixture
def net():
    net = DeepLabV2(3, backbone="resnet10_quarter", atrous_rates=(1, 2), scales=(1.0,)).eval()
    torch.nn.init.normal_(net.head.branches[0].weight, std=0.5)
    net.classes = {"a": (1, 2, 3), "b": (4, 5, 6), "c": (7, 8, 9)}
    return net


@pytest.mark.parametrize("crf", [None, DenseCRF(backend="torch", iterations=2)])
def test_a_mask_is_what_the_parts_give_one_after_the_other(net, crf):
    image = torch.randint(256, (49, 65, 3), dtype=torch.uint8)
    inference = Inference(flip=True)
    with torch.no_grad():
        probabilities = inference(net, image.permute(2, 0, 1)[None])[0].softmax(0)
    if crf is not None:
        probabilities = torch.as_tensor(crf(image.numpy(), probabilities.numpy()))
    found = Segmenter(net, inference, crf)(image)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, probabilities.argmax(0).numpy())


def test_it_says_what_an_image_costs(net):
    assert "2 passes" in Segmenter(net, Inference(flip=True)).cost((49, 65))
