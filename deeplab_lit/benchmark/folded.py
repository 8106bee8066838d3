"""Fold frozen normalization into the convolution before it: a variant to measure, not one to train.

y = (conv(x) − mean)·s + b with s = weight / √(var + ε) is a convolution with the weights times s
and the bias b − mean·s. The product is taken anew at every forward, so that the weights still
learn; what is saved are a pass over the activations, and their copy for the backward pass.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_lit.network.backbone import FrozenBatchNorm2d
from deeplab_lit.network.deeplab import DeepLabV2


class FoldedConv(nn.Module):
    """A convolution with the frozen normalization behind it.

    Args:
        conv: without a bias.
        norm: of its features.
    """

    def __init__(self, conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized features (B,D,h,w)."""
        norm, conv = self.norm, self.conv
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = conv.weight * scale[:, None, None, None]
        bias = norm.bias - norm.running_mean * scale
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def folded(net: DeepLabV2) -> DeepLabV2:
    """Return a copy of a network in which every convolution has its frozen normalization inside.

    Args:
        net: with frozen normalization, each registered right behind its convolution, as in a
            ResNet.
    """
    net = deepcopy(net)
    for parent in [*net.backbone.modules()]:
        children = list(parent.named_children())
        followed = dict(zip([name for name, _ in children], children[1:], strict=False))
        if isinstance(parent, FoldedConv):
            continue
        for name, conv in children:
            following, norm = followed.get(name, ("", None))
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d):
                setattr(parent, name, FoldedConv(conv, norm))
                setattr(parent, following, nn.Identity())
    return net
