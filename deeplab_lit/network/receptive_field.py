"""What an atrous rate sees: fields of view of the head's branches, and taps that see nothing.

- The theoretical field: the square of pixels that an output cell can depend on.
- The effective field: where its gradient really lies (Luo et al., arXiv:1701.04128), usually far
  smaller, and not filled where the rate leaves holes.
- The share of a 3×3 kernel's taps on real features: on a grid of 41×41 cells (a crop of 321), rate
  24 puts two thirds of them into the padding, and a rate of 41 leaves the middle one alone, a 1×1
  convolution (DeepLabv3, arXiv:1706.05587, Sec. 3.3 and Fig. 4).

Letters: H×W image · h×w feature cells.
"""

import torch
from torch import Tensor, nn

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.head import ImagePooling


def theoretical_field(net: DeepLabV2, branch: int) -> int:
    """Side in pixels of the square that a cell of a branch's output can depend on.

    Borders and image pooling (which sees everything) are not counted.

    Args:
        net: any network.
        branch: number of the head's branch.
    """
    modules = [*net.backbone.parts(), *_before_branches(net), net.head.branches[branch]]
    side, stride = 1, 1
    for module in modules:
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                if "downsample" in name:  # a 1×1 shortcut beside the convolutions of its block
                    continue
                side += (_one(layer.kernel_size) - 1) * _one(getattr(layer, "dilation", 1)) * stride
                stride *= _one(layer.stride)
    return side


def effective_field(net: DeepLabV2, branch: int, images: Tensor) -> Tensor:
    """Where the middle cell of a branch's output looks.

    Args:
        net: a network, trained or not; it is evaluated at scale 1.
        branch: number of the head's branch.
        images: (B,3,H,W) RGB in 0…255.

    Returns:
        (H,W) float32: gradient of the cell (all channels summed) by the pixels, in magnitude,
        averaged over colours and images. Its sum is 1, or 0 where nothing is seen.
    """
    training = net.training
    net.eval()
    images = images.detach().float().requires_grad_()
    with torch.enable_grad():
        features = net.backbone(net.preprocess(images))
        for layer in _before_branches(net):
            features = layer(features)
        output = net.head.branches[branch](features)
        middle = output[..., output.shape[-2] // 2, output.shape[-1] // 2]
        (gradient,) = torch.autograd.grad(middle.sum(), images)
    net.train(training)
    field = gradient.abs().mean(dim=(0, 1))
    return field / field.sum().clamp_min(torch.finfo(field.dtype).tiny)


def side_of(field: Tensor, share: float = 0.9) -> int:
    """Side in pixels of the smallest square around the middle that holds a share of a field.

    Args:
        field: (H,W), of which the sum is 1, as `effective_field` gives it.
        share: 0…1.

    Returns:
        An odd number; 0 for a field of nothing.
    """
    y, x = (torch.arange(n, device=field.device) - n // 2 for n in field.shape)
    distance = torch.maximum(y.abs()[:, None], x.abs()[None])
    inside = torch.zeros(int(distance.max()) + 1, dtype=torch.float64, device=field.device)
    inside.index_add_(0, distance.flatten(), field.flatten().double())
    reached = (inside.cumsum(0) >= share * float(field.sum())).nonzero()
    return 2 * int(reached[0]) + 1 if field.sum() > 0 else 0


def real_taps(rate: int, height: int, width: int) -> Tensor:
    """How many of a 3×3 kernel's nine taps fall on real features, not on padding.

    Args:
        rate: of the convolution, in cells.
        height: h, cells.
        width: w, cells.

    Returns:
        (h,w) int64 in {1,2,3,4,6,9}: at each cell.
    """
    along = []
    for cells in (height, width):
        place = torch.arange(cells)
        along.append(1 + (place >= rate).long() + (place < cells - rate).long())
    return along[0][:, None] * along[1][None]


def share_of_real_taps(rate: int, height: int, width: int) -> float:
    """Share of all taps on the grid that fall on real features: from 1/9 (a 1×1) to nearly 1."""
    return real_taps(rate, height, width).double().mean().item() / 9


def rate_of(net: DeepLabV2, branch: int) -> int | None:
    """Rate of a branch's 3×3 convolution; null for a 1×1 or for image pooling."""
    if isinstance(net.head.branches[branch], ImagePooling):
        return None
    convs = [m for m in net.head.branches[branch].modules() if isinstance(m, nn.Conv2d)]
    return convs[0].dilation[0] if convs[0].kernel_size != (1, 1) else None


def _before_branches(net: DeepLabV2) -> list[nn.Module]:
    """VGG-16's LargeFOV head averages before its branch."""
    pool = getattr(net.head, "pool", None)
    return [] if pool is None else [pool]


def _one(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]
