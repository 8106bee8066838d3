import pytest
import torch

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.scoring.evaluation import Evaluation


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -0.5)])
def test_evaluation_scales_that_make_no_sense_are_refused(scales):
    with pytest.raises(ValueError, match="scales"):
        Evaluation(scales)


def test_a_cache_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"--eval\.cache_dir must name a folder"):
        Evaluation(cache_dir="")


@torch.no_grad()
def test_cached_or_not_the_labels_are_those_of_the_network(tmp_path):
    net = DeepLabV2(3, backbone="resnet10_quarter", norm="batch", scales=(1.0,)).eval()
    torch.nn.init.normal_(net.head.branches[0].weight, std=0.5)
    batch = {"image": torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8), "id": ["a", "b"]}
    expected = net(batch["image"])
    assert Evaluation().logits(net, batch).equal(expected)
    cached = Evaluation(cache_dir=str(tmp_path))
    written = cached.logits(net, batch)
    torch.testing.assert_close(written.softmax(1), expected.softmax(1), rtol=2**-10, atol=2e-5)
    torch.nn.init.zeros_(net.head.branches[0].weight)  # nobody asks the network again
    assert cached.logits(net, batch).equal(written)
