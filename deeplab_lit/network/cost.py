"""Count what a network costs: its weights, and the multiply-adds of a forward pass.

They are counted on torch's meta device, which knows shapes and no values: without memory for
activations, and in no time, whatever the size of the image.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deeplab_lit.network.deeplab import DeepLabV2


class Cost(NamedTuple):
    """The cost of a network and of one image.

    Attributes:
        parameters: number of weights and biases, those of normalization included, frozen or not.
        learnable: how many of them are trained.
        macs: multiply-adds of convolutions and matrix products in one forward pass, at all scales:
            half of what `torch.utils.flop_counter` counts, to which a multiply-add is two.
        macs_with_aux: likewise, with the auxiliary head, as in training; None: there is none.
    """

    parameters: int
    learnable: int
    macs: int
    macs_with_aux: int | None


def cost_of(net: DeepLabV2, size: Sequence[int]) -> Cost:
    """Count the weights of a network and the multiply-adds of one image.

    Biases, normalization, activations, pooling and resizing are not counted, as in other counters
    or hardly: together they are below one percent.

    Args:
        net: any network; it is left as it is.
        size: height and width of the image in pixels.
    """
    shapes = deepcopy(net).to("meta").eval()
    image = torch.empty(1, 3, *size, device="meta")
    with FlopCounterMode(display=False) as main, torch.no_grad():
        shapes(image)
    with_aux = None
    if shapes.aux_head is not None:
        with FlopCounterMode(display=False) as both, torch.no_grad():
            shapes.logits_and_aux(image)
        with_aux = both.get_total_flops() // 2
    learnable = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return Cost(_parameters(net), learnable, main.get_total_flops() // 2, with_aux)


def _parameters(net: nn.Module) -> int:
    """Count the weights and biases; frozen normalization has its own in buffers."""
    frozen = [m for m in net.modules() if isinstance(m, torchvision.ops.FrozenBatchNorm2d)]
    return sum(p.numel() for p in net.parameters()) + sum(
        buffer.numel() for norm in frozen for buffer in (norm.weight, norm.bias)
    )
