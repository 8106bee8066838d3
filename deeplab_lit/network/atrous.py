"""Atrous convolution: a strided classifier becomes a dense feature extractor.

DeepLabv2, Sec. 3.1 (arXiv:1606.00915): "we find the last pooling or convolutional layer that
decreases resolution, set its stride to 1 to avoid signal decimation, and replace all subsequent
convolutional layers with atrous convolutional layers having rate r = 2". Done once, it halves the
output stride (32 → 16); done twice, it quarters it (32 → 8) and the last layers get rate 4.
"""

from collections.abc import Iterable

from torch import nn

OUTPUT_STRIDES = (8, 16, 32)


def make_atrous(units: Iterable[nn.Module], output_stride: int) -> None:
    """Replace strides by dilations, in place, wherever features get coarser than `output_stride`.

    The features of the new network, subsampled by the factor that it has gained, equal those of the
    strided network exactly. Hence the rule for a convolution that was itself strided: it keeps the
    rate of the layers before it, and only what follows is dilated. In the authors' ResNet the
    stride sits on the first 1×1 of a stage, so the 3×3 of the first block is dilated too (rate 2
    in res4a, 4 in res5a); in torchvision's ResNet the stride sits on that 3×3.

    Args:
        units: the network's parts in forward order, each a convolution, a pooling layer or a
            residual block. Kernels are odd and padded to keep the size. Inside a block, layers are
            registered in forward order, and a strided shortcut is a 1×1 convolution.
        output_stride: image pixels per feature cell, in each direction: 8, 16 or 32.

    Raises:
        ValueError: `output_stride` is none of those, or more than the network has.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride must be one of {OUTPUT_STRIDES}, got {output_stride}")
    stride, rate = 1, 1
    for unit in units:
        layers = [m for m in unit.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
        unit_stride = max((_stride(layer) for layer in layers), default=1)
        rate_after = rate
        for layer in layers:
            if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
                _set_rate(layer, rate_after)
            if _stride(layer) > 1 and stride >= output_stride:
                layer.stride = 1 if isinstance(layer, nn.MaxPool2d) else (1, 1)
                rate_after = rate * unit_stride
        stride *= unit_stride
        rate = rate_after
    if stride < output_stride:
        raise ValueError(f"output_stride is at most {stride} for this network, got {output_stride}")


def _stride(layer: nn.Conv2d | nn.MaxPool2d) -> int:
    return layer.stride if isinstance(layer.stride, int) else layer.stride[0]


def _set_rate(conv: nn.Conv2d, rate: int) -> None:
    conv.dilation = (rate, rate)
    height, width = conv.kernel_size
    conv.padding = (rate * (height // 2), rate * (width // 2))
