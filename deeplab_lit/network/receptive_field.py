"""Fields of view of the head's branches at their atrous rates, and taps that see nothing.

- The theoretical field: the square of pixels that an output cell can depend on.
- The effective field: where its gradient really lies (Luo et al., arXiv:1701.04128), usually far
  smaller, and not filled where the rate leaves holes.
- The share of a 3×3 kernel's taps on real features: on a grid of 41×41 cells (a crop of 321), rate
  24 puts 63 % of them into the padding, and a rate of 41 leaves the middle one alone, a 1×1
  convolution (DeepLabv3, arXiv:1706.05587, Sec. 3.3 and Fig. 4).

Letters: H×W image · h×w feature cells.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.head import ASPPConcat, ImagePooling

MAX_EXACT_CLASSES = 8
NUM_RANDOM_SUMS = 4  # used above that


def branches_of(net: DeepLabV2) -> list[nn.Module]:
    """Return the head's parallel branches; the whole head where it has none."""
    branches = getattr(net.head, "branches", None)
    return list(branches) if isinstance(branches, nn.ModuleList) else [net.head]


def theoretical_field(net: DeepLabV2, branch: int) -> int:
    """Return the side in pixels of the square that a cell of a branch's output can depend on.

    Borders and image pooling (which sees everything) are not counted.

    Args:
        net: any network.
        branch: number of the head's branch.
    """
    modules = [*net.backbone.parts(), *_before_branches(net), branches_of(net)[branch]]
    side, stride = 1, 1
    for module in modules:
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                if "downsample" in name:  # a 1×1 shortcut beside the convolutions of its block
                    continue
                side += (_one(layer.kernel_size) - 1) * _one(getattr(layer, "dilation", 1)) * stride
                stride *= _one(layer.stride)
    return side


def effective_fields(net: DeepLabV2, images: Tensor) -> Tensor:
    """Return where the output cell at `middle_pixel` looks, through each branch of the head.

    A branch of `aspp`, `largefov` or `conv1x1` gives logits. They are differentiated class by
    class, each less the mean of the classes: softmax and cross-entropy do not see what all classes
    share, so that this part of the weights stays as it was initialized, but for weight decay. A
    branch of `aspp_concat` gives features, which are summed.

    The cost is a backward pass an image, branch and class. Of more than `MAX_EXACT_CLASSES`
    classes, `NUM_RANDOM_SUMS` sums of all classes with random signs stand in for them, others for
    each image, so that 171 classes take no longer than four; over six images, on trained networks
    with 7 and 11 classes, that moved 4 to 6 % of a field and changed no side of 90 %. One image is
    in memory at a time, with the features that all branches share.

    Args:
        net: a network, trained or not; it is evaluated at scale 1.
        images: (B,3,H,W) RGB in 0…255.

    Returns:
        (branches,H,W) float32: the gradient by the pixels, in magnitude, averaged over classes,
        colors and images. A field's sum is 1, or 0 where nothing is seen.
    """
    fields = torch.zeros(len(branches_of(net)), *images.shape[-2:], device=images.device)
    with _frozen(net), torch.enable_grad():
        for number, image in enumerate(images):
            fields += _fields_of(net, image.detach().float(), seed=number)
    total = fields.sum(dim=(1, 2), keepdim=True)
    return fields / total.clamp_min(torch.finfo(fields.dtype).tiny)


def middle_pixel(net: DeepLabV2, height: int, width: int) -> tuple[int, int]:
    """Return the pixel (y,x) on which the output cell nearest to the image's middle is centered.

    Cell i is centered on pixel i times the output stride, so the middle itself may have no cell.
    """
    stride = net.output_stride
    y, x = ((size - 1 + stride) // (2 * stride) * stride for size in (height, width))
    return y, x


def side_of(field: Tensor, center: tuple[int, int], share: float = 0.9) -> int:
    """Return the side of the smallest square around a pixel that holds a share of a field.

    Args:
        field: (H,W), not negative, as `effective_fields` gives it.
        center: (y,x); of such a field `middle_pixel`.
        share: 0…1.

    Returns:
        An odd number of pixels; 0 for a field of nothing.
    """
    down, across = (
        (torch.arange(n, device=field.device) - c).abs()
        for n, c in zip(field.shape, center, strict=True)
    )
    distance = torch.maximum(down[:, None], across[None])
    inside = torch.zeros(int(distance.max()) + 1, dtype=torch.float64, device=field.device)
    inside = inside.index_add_(0, distance.flatten(), field.flatten().double()).cumsum(0)
    reached = (inside >= share * inside[-1]).nonzero()
    return 2 * int(reached[0]) + 1 if inside[-1] > 0 else 0


def real_taps(rate: int, height: int, width: int) -> Tensor:
    """Count how many of a 3×3 kernel's nine taps fall on real features, not on padding.

    Args:
        rate: of the convolution, in cells.
        height: h, cells.
        width: w, cells.

    Returns:
        (h,w) int64 in {1,2,3,4,6,9}: at each cell.
    """
    cells = (torch.arange(height), torch.arange(width))
    down, across = (1 + (i >= rate).long() + (i < len(i) - rate).long() for i in cells)
    return down[:, None] * across[None]


def share_of_real_taps(rate: int, height: int, width: int) -> float:
    """Return the share of all taps that fall on real features: from 1/9 (a 1×1) to nearly 1."""
    return real_taps(rate, height, width).double().mean().item() / 9


def rate_of(net: DeepLabV2, branch: int) -> int | None:
    """Return the rate of a branch's first 3×3 convolution; None: it is a 1×1 or image pooling."""
    module = branches_of(net)[branch]
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    if isinstance(module, ImagePooling) or not convs or convs[0].kernel_size == (1, 1):
        return None
    return convs[0].dilation[0]


@contextmanager
def _frozen(net: nn.Module) -> Iterator[None]:
    """Evaluate without gradients of parameters, whose inputs need not be kept then."""
    modes = [(module, module.training) for module in net.modules()]
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    net.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter in trainable:
            parameter.requires_grad_()


def _fields_of(net: DeepLabV2, image: Tensor, seed: int) -> Tensor:
    """Return the fields (branches,H,W) of one image (3,H,W), not normalized."""
    y, x = (pixel // net.output_stride for pixel in middle_pixel(net, *image.shape[-2:]))
    pixels = image.requires_grad_()
    features = net.backbone(net.preprocess(pixels[None]))
    for layer in _before_branches(net):
        features = layer(features)
    fields = []
    for branch in branches_of(net):
        cell = branch(features)[0, :, y, x]
        magnitudes = [
            torch.autograd.grad(cell, pixels, direction, retain_graph=True)[0].abs().mean(0)
            for direction in _directions(net, cell, seed)
        ]
        fields.append(torch.stack(magnitudes).mean(0))
    return torch.stack(fields)


def _directions(net: DeepLabV2, cell: Tensor, seed: int) -> Tensor:
    """Return the directions (·,C) in which the channels of a cell (C,) are differentiated."""
    if isinstance(net.head, ASPPConcat) or len(cell) != net.num_classes:  # features
        return torch.ones_like(cell)[None]
    weights = torch.eye(len(cell))
    if len(cell) > MAX_EXACT_CLASSES:  # one seed for all branches: they are compared
        random = torch.Generator().manual_seed(seed)
        weights = 2.0 * torch.randint(0, 2, (NUM_RANDOM_SUMS, len(cell)), generator=random) - 1
    return (weights - weights.mean(1, keepdim=True)).to(cell)


def _before_branches(net: DeepLabV2) -> list[nn.Module]:
    """Return the pooling before the branches, which VGG-16's LargeFOV head has."""
    pool = getattr(net.head, "pool", None)
    return [] if pool is None else [pool]


def _one(size: int | tuple[int, ...]) -> int:
    """Return the size along one side."""
    return size if isinstance(size, int) else size[0]
