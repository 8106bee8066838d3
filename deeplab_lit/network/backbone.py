"""Backbones: torchvision's ResNet-18…152 and VGG-16 as atrous feature extractors, and tiny ones.

DeepLabv2, Sec. 3.1 and 4; the released ResNet-101 and VGG-16 prototxt files. Parameter names are
torchvision's own, so that its weight files fit.

Letters: B batch · D features · H×W image · h×w feature cells (H/8 × W/8 at output stride 8).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal, get_args

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck

from deeplab_lit.network.atrous import make_atrous
from deeplab_lit.types import class_of

if TYPE_CHECKING:
    from deeplab_lit.network.feature_cache import FeatureCache

BackboneName = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "vgg16",
    "resnet10_quarter",
    "resnet6_half",
]
Style = Literal["torchvision", "caffe"]
Norm = Literal["frozen", "frozen_affine", "batch"]
# One basic block a stage, of so many channels: for small data on a CPU, from scratch. A cell of
# resnet6_half sees 51 pixels: what lies farther away only the head's rates bring in.
TINY = {"resnet10_quarter": (16, 32, 64, 128), "resnet6_half": (32, 64)}


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """torchvision's frozen normalization, kept in the precision of its input.

    The parent multiplies with float32 buffers, which turns bfloat16 activations back into float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x (B,D,h,w) with the stored statistics and affine; same shape and dtype."""
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
            eps=self.eps,
        )


def frozen_affine(channels: int) -> nn.BatchNorm2d:
    """Return batch normalization whose weight and bias are not trained; its statistics are."""
    return nn.BatchNorm2d(channels).requires_grad_(requires_grad=False)


NORM_LAYERS: dict[Norm, Callable[[int], nn.Module]] = {
    "frozen": FrozenBatchNorm2d,
    "frozen_affine": frozen_affine,
    "batch": nn.BatchNorm2d,
}


class Backbone(nn.Module, ABC):
    """Images to features: what the network needs of a backbone, ours or one of yours.

    One of yours is made as `MyBackbone(output_stride, style, norm)`; what these are, `ResNet` says.
    `make_atrous` brings a strided classifier to the output stride.

    Attributes:
        out_channels: D, the number of features.
        aux_channels: the number of features behind `aux_part`; None: there is no such part.
        gradient_checkpointing: in training, recompute each part's activations instead of storing
            them: less memory, one more forward pass.
        cache: takes the place of the first `parts`, which are frozen; None: nothing does.
    """

    out_channels: int
    aux_channels: int | None = None
    gradient_checkpointing = False
    cache: "FeatureCache | None" = None

    @abstractmethod
    def parts(self) -> Iterable[nn.Module]:
        """Return the network in forward order, cut where activations may be recomputed."""

    def aux_part(self) -> nn.Module | None:
        """Return the one of `parts` whose features an auxiliary head takes; None: there is none."""
        return None

    def forward(self, x: Tensor, *, with_aux: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the features (B,D,h,w) of preprocessed images (B,3,H,W).

        Args:
            x: the images.
            with_aux: return a pair: these features, and those behind `aux_part`.
        """
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        aux_part = self.aux_part() if with_aux else None
        aux = x
        parts = list(self.parts())
        if self.cache is not None:
            x, parts = self.cache(x), parts[len(self.cache.layers) :]
        for part in parts:
            x = recomputed(part, x) if recompute else part(x)
            if part is aux_part:
                aux = x
        return (x, aux) if with_aux else x


def recomputed(part: nn.Module, x: Tensor) -> Tensor:
    """Return `part(x)`, keeping nothing but x for the backward pass, which computes it again.

    Statistics of trained normalization count each batch once.
    """
    norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)]
    if not norms:
        return checkpoint(part, x, use_reentrant=False)
    contexts = nullcontext(), _without_statistics(norms)
    return checkpoint(part, x, use_reentrant=False, context_fn=lambda: contexts)


@contextmanager
def _without_statistics(norms: Sequence[nn.BatchNorm2d | nn.SyncBatchNorm]) -> Iterator[None]:
    """Count no batch while activations are recomputed: the first pass has counted it already."""
    states = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:  # torch stops a recomputation by an exception as soon as it has what it needs
        for norm, state in zip(norms, states, strict=True):
            norm.momentum, norm.num_batches_tracked = state


class ResNet(Backbone):
    """A torchvision ResNet without its classifier.

    Args:
        name: which ResNet.
        output_stride: image pixels per feature cell: 8, 16 or 32; of resnet6_half 8.
        style: "caffe" is the authors' network: the stride of a bottleneck stage on its first 1×1,
            and a max-pool that rounds sizes up (ResNet-18 and -34 have no 1×1 there; nobody has
            released such weights of them). "torchvision" has it on the 3×3 and rounds down.
            Weights trained with one give wrong features in the other.
        norm: "frozen" keeps statistics and affine fixed, as the authors do; "batch" trains them;
            "frozen_affine" keeps the affine fixed, and statistics follow the training's batches.
    """

    def __init__(self, name: str, output_stride: int, style: Style, norm: Norm) -> None:
        super().__init__()
        norm_layer = NORM_LAYERS[norm]
        if name in TINY:
            net = _TinyResNet(TINY[name], norm_layer)
        else:
            net = torchvision.models.get_model(name, weights=None, norm_layer=norm_layer)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4
        self.out_channels = net.inplanes
        if len(self.layer3):
            following = self.layer4[0].conv1
            assert isinstance(following, nn.Conv2d)
            self.aux_channels = following.in_channels
        if style == "caffe":
            self.maxpool.ceil_mode = True
            for block in (*self.layer2[:1], *self.layer3[:1], *self.layer4[:1]):
                if isinstance(block, Bottleneck):
                    block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        make_atrous([self.conv1, self.maxpool, *self._blocks()], output_stride)

    def parts(self) -> Iterable[nn.Module]:
        """Return the stem, then the residual blocks."""
        yield nn.Sequential(self.conv1, self.bn1, self.relu, self.maxpool)
        yield from self._blocks()

    def aux_part(self) -> nn.Module | None:
        """Return the last block of layer3, conv4 in the papers; resnet6_half has none."""
        return self.layer3[-1] if len(self.layer3) else None

    def _blocks(self) -> Iterable[nn.Module]:
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            yield from stage


class _TinyResNet(nn.Module):
    """Stem and stages of a ResNet with one basic block each, under torchvision's names."""

    def __init__(self, widths: tuple[int, ...], norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = norm_layer(widths[0]), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(widths[0], widths[0], norm_layer=norm_layer))
        self.layer2, self.layer3, self.layer4 = nn.Sequential(), nn.Sequential(), nn.Sequential()
        for stage, width in zip((self.layer2, self.layer3, self.layer4), widths[1:], strict=False):
            shortcut = nn.Sequential(
                nn.Conv2d(width // 2, width, 1, stride=2, bias=False), norm_layer(width)
            )
            stage.append(BasicBlock(width // 2, width, 2, shortcut, norm_layer=norm_layer))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.inplanes = widths[-1]


class VGG16(Backbone):
    """conv1_1 … pool5 of VGG-16 with the released net's pooling: 3×3, padding 1.

    The release leaves pool5 undilated, so only the features up to conv5_3 are those of the strided
    network.

    Args:
        output_stride: image pixels per feature cell: 8, 16 or 32. At 8, pool4 and pool5 have stride
            1 and conv5 has rate 2.
        style: "caffe" rounds sizes up in pooling, "torchvision" down.
    """

    out_channels = 512

    def __init__(self, output_stride: int, style: Style) -> None:
        super().__init__()
        with torch.device("meta"):  # no time for the 120 million weights of the classifier
            features = torchvision.models.vgg16(weights=None).features
        self.features = features.to_empty(device="cpu")
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):  # torchvision's own initial weights
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for i, layer in enumerate(self.features):
            if isinstance(layer, nn.MaxPool2d):
                self.features[i] = nn.MaxPool2d(3, 2, padding=1, ceil_mode=style == "caffe")
        make_atrous(self.features, output_stride)

    def parts(self) -> Iterable[nn.Module]:
        """Return five parts: the convolutions up to and with each pooling."""
        ends = [i + 1 for i, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        for start, end in zip([0, *ends], ends, strict=False):
            yield self.features[start:end]


def build_backbone(
    name: BackboneName | type[Backbone] | str, output_stride: int, style: Style, norm: Norm
) -> Backbone:
    """Return a backbone with random weights.

    Args:
        name: one of ours; or a class of yours, or its name "module.Class".
        output_stride: see `ResNet`, as for the others.
        style: of the weights that are to fit.
        norm: of the normalization.

    Raises:
        ValueError: an unknown name or norm, or an output stride other than 8, 16, 32.
    """
    if norm not in get_args(Norm):
        raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {norm!r}")
    if isinstance(name, type):
        return name(output_stride, style, norm)
    if name not in get_args(BackboneName):
        if "." in name:
            return class_of(name, Backbone)(output_stride, style, norm)
        raise ValueError(
            f"backbone must be one of {', '.join(get_args(BackboneName))}, got {name!r}"
        )
    if name == "vgg16":
        return VGG16(output_stride, style)
    return ResNet(name, output_stride, style, norm)
