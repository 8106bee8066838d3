import torch

from deeplab_lit.benchmark.equality import distance, network
from deeplab_lit.benchmark.folded import FoldedConv, folded
from deeplab_lit.network.backbone import FrozenBatchNorm2d


def test_folded_normalization_gives_the_same_logits_and_gradients():
    net = network(backbone="resnet10_quarter", atrous_rates=(2, 4), scales=(1.0, 0.5))
    for norm in net.modules():
        if isinstance(norm, FrozenBatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.5, 2)
            torch.nn.init.normal_(norm.bias)
    fold = folded(net)
    assert sum(isinstance(m, FoldedConv) for m in fold.modules()) == 12
    assert not any(isinstance(m, FoldedConv) for m in net.modules())
    images = torch.randint(256, (2, 3, 65, 65), dtype=torch.uint8)
    expected, found = net(images), fold(images)
    assert distance(found, expected) < 2e-6
    expected.square().sum().backward()
    found.square().sum().backward()
    conv, same = net.backbone.layer3[0].conv2, fold.backbone.layer3[0].conv2.conv
    assert distance(same.weight.grad, conv.weight.grad) < 1e-5
