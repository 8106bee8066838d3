"""DeepLabv2 on a ResNet as ports to PyTorch write it: what `benchmark step` compares ours with.

Plain torch throughout: float32, contiguous, residual blocks in `nn.Sequential`, normalization
frozen by `eval()`, one convolution a rate whose outputs are summed, the image and the logits
resized by `F.interpolate`, `torch.max` over the scales, and `F.cross_entropy` of each. Scales are
scored where the authors score them (network/multiscale.py), corners are aligned. Weights are named
as torchvision's, so that a network of ours lends it its own; then both compute the same.

Letters: B batch · C classes · D features · H×W image · h×w feature cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_lit.network.backbone import ResNet
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.head import ASPP


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut; the first one carries the stride."""

    expansion = 1

    def __init__(self, features: int, width: int, stride: int, rates: tuple[int, int]) -> None:
        super().__init__()
        first, second = rates
        self.conv1 = nn.Conv2d(features, width, 3, stride, first, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, second, second, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B,D,h,w) behind the block."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += shortcut
        return self.relu(out)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions around a shortcut; Caffe's stride is on the first."""

    expansion = 4

    def __init__(
        self, features: int, width: int, stride: int, rate: int, *, is_caffe: bool
    ) -> None:
        super().__init__()
        on_1x1, on_3x3 = (stride, 1) if is_caffe else (1, stride)
        self.conv1 = nn.Conv2d(features, width, 1, on_1x1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, on_3x3, rate, rate, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B,D,h,w) behind the block."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += shortcut
        return self.relu(out)


class PlainDeepLab(nn.Module):
    """Stem, stages, classifiers a rate, and scales around them.

    Args:
        stem: features behind the first convolution.
        stages: of each stage its width, its number of blocks, its stride, the rate of its first
            block and that of the others.
        bottleneck: blocks are bottlenecks, else basic ones.
        is_caffe: stride and pooling as in the authors' network.
        num_classes: C.
        classifiers: kernel size and rate of each.
        scales: of the image.
    """

    def __init__(
        self,
        *,
        stem: int,
        stages: Sequence[tuple[int, int, int, int, int]],
        bottleneck: bool,
        is_caffe: bool,
        num_classes: int,
        classifiers: Sequence[tuple[int, int]],
        scales: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.scales = scales
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=is_caffe)
        features, layers = stem, []
        for width, blocks, stride, first_rate, rate in stages:
            layer = []
            for i in range(blocks):
                step, before = (stride, first_rate) if i == 0 else (1, rate)
                block: BasicBlock | Bottleneck
                if bottleneck:
                    of_3x3 = rate if is_caffe else before
                    block = Bottleneck(features, width, step, of_3x3, is_caffe=is_caffe)
                else:
                    block = BasicBlock(features, width, step, (before, rate))
                out = width * block.expansion
                if i == 0 and (stride > 1 or features != out):
                    conv = nn.Conv2d(features, out, 1, stride, bias=False)
                    block.downsample = nn.Sequential(conv, nn.BatchNorm2d(out))
                layer.append(block)
                features = out
            layers.append(nn.Sequential(*layer))
        self.layers = nn.ModuleList(layers)
        self.aspp = nn.ModuleList(
            nn.Conv2d(features, num_classes, size, padding=rate * (size // 2), dilation=rate)
            for size, rate in classifiers
        )

    def one_scale(self, x: Tensor) -> Tensor:
        """Return the logits (B,C,h,w) of an image at one scale."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for layer in self.layers:
            x = layer(x)
        out = self.aspp[0](x)
        for i in range(len(self.aspp) - 1):
            out += self.aspp[i + 1](x)
        return out

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps that have a loss: of each scale, and their maximum where there are more.

        Args:
            images: (B,3,H,W) float32, normalized.
        """
        logits = []
        for scale in self.scales:
            x = images
            if scale != 1:
                size = [int((side - 1) * scale) + 1 for side in images.shape[-2:]]
                x = F.interpolate(images, size, mode="bilinear", align_corners=True)
            logits.append(self.one_scale(x))
        if len(logits) == 1:
            return logits
        size = list(logits[self.scales.index(max(self.scales))].shape[-2:])
        upsampled = [F.interpolate(x, size, mode="bilinear", align_corners=True) for x in logits]
        maximum = torch.max(torch.stack(upsampled), dim=0)[0]
        pairs = zip(self.scales, logits, upsampled, strict=True)
        return [*(x if (1 / s).is_integer() else large for s, x, large in pairs), maximum]


def plain_loss(maps: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return the sum of the cross-entropy of each map, on labels at its size.

    Args:
        maps: (B,C,·,·) each.
        mask: (B,H,W) int64, class indices and 255 for void.
    """
    total = torch.zeros((), device=mask.device)
    for logits in maps:
        rows, columns = (
            torch.linspace(0, side - 1, cells, device=mask.device).round().long()
            for side, cells in zip(mask.shape[-2:], logits.shape[-2:], strict=True)
        )
        total = total + F.cross_entropy(logits, mask[:, rows][:, :, columns], ignore_index=255)
    return total


def why_no_port(net: DeepLabV2) -> str | None:
    """Return what of a network there is no plain port of; None: there is one."""
    if not isinstance(net.backbone, ResNet):
        return f"the backbone {net.backbone_name}"
    if type(net.head) is not ASPP:
        return f"the head {net.head_name}"
    if not net.align_corners:
        return "align_corners false"
    return None if net.aux_head is None else "an auxiliary head"


def port_of(net: DeepLabV2) -> PlainDeepLab:
    """Return the plain port of a network of ours, with its weights, in training mode.

    Args:
        net: one for which `why_no_port` returns None.
    """
    backbone, head = net.backbone, net.head
    assert isinstance(backbone, ResNet)
    assert isinstance(head, ASPP)
    names = [f"layer{i}" for i in range(1, 5) if len(getattr(backbone, f"layer{i}"))]
    stages, coarse, rate = [], 4, 1
    for number, name in enumerate(names):
        stage = getattr(backbone, name)
        halves = number > 0  # every stage but the first does so in a classifier
        dense = halves and coarse >= net.output_stride
        stride, after = (2, rate) if halves and not dense else (1, 2 * rate if dense else rate)
        stages.append((stage[0].conv1.out_channels, len(stage), stride, rate, after))
        coarse, rate = coarse * stride, after
    convs = [branch for branch in head.branches if isinstance(branch, nn.Conv2d)]
    port = PlainDeepLab(
        stem=backbone.conv1.out_channels,
        stages=stages,
        bottleneck=hasattr(backbone.layer1[0], "conv3"),
        is_caffe=net.style == "caffe",
        num_classes=net.num_classes,
        classifiers=[(conv.kernel_size[0], conv.dilation[0]) for conv in convs],
        scales=net.scales,
    ).to(net.preprocess.mean.device)
    weights = {_name(name): value for name, value in net.state_dict().items()}
    del weights["preprocess.mean"], weights["preprocess.std"]
    # frozen normalization of ours does not count batches
    port.load_state_dict(port.state_dict() | weights)
    port.train()
    for module in port.modules():
        if isinstance(module, nn.BatchNorm2d) and net.norm != "batch":
            module.requires_grad_(requires_grad=False)
            module.train(net.norm != "frozen")
    return port


def _name(name: str) -> str:
    """Return the port's name of a weight of ours."""
    name = name.removeprefix("backbone.").replace("head.branches.", "aspp.")
    stage, _, rest = name.partition(".")
    return f"layers.{int(stage[5:]) - 1}.{rest}" if stage.startswith("layer") else name
