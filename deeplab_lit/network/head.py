"""Heads: atrous spatial pyramid pooling and its relatives, features (B,D,h,w) → logits (B,C,h,w).

- `aspp`: DeepLabv2, Sec. 3.2 and Fig. 7, as released: parallel branches, one a rate, whose logits
  are *summed*. With ResNet a branch is one 3×3 convolution; with VGG-16 it is fc6-fc7-fc8.
- `largefov`: one branch with a large rate (DeepLabv1; DeepLabv2, Sec. 4.1.1).
- `aspp_3x3`: the released ResNet-101 head, one 3×3 convolution a rate, behind VGG-16 too: with a
  hundredth of the weights of fc6-fc7-fc8 it suits ablations on a CPU.
- `conv1x1`: a classifier alone: the rows of DeepLabv2's tables with neither LargeFOV nor ASPP. The
  paper does not spell it out; the authors' weights from MS-COCO have such a head.
- `aspp_concat`: the five-branch form with image pooling, concatenation and projection, published in
  DeepLabv3 (arXiv:1706.05587, Sec. 3.3). Its normalization is always trained.

Letters: B batch · C classes · D features · h×w feature cells.
"""

import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_lit.types import class_of

HeadName = Literal["aspp", "largefov", "conv1x1", "aspp_concat", "aspp_3x3"]
MOST_RATES, LARGEST_RATE = 64, 1_000_000  # beyond all images


def atrous_conv(in_channels: int, out_channels: int, rate: int, *, bias: bool = True) -> nn.Conv2d:
    """Return a 3×3 convolution of an atrous rate that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate, bias=bias)


class Head(nn.Module, ABC):
    """Features to logits: what the network needs of a head, ours or one of yours.

    One of yours is made as `MyHead(in_channels, num_classes, atrous_rates)`. Where it has parallel
    branches, call them `self.branches`: reports then show where each of them looks.
    """

    def new_layers(self) -> tuple[nn.Module, ...]:
        """Return the layers trained from scratch, at a higher learning rate: all."""
        return (self,)

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (B,C,h,w) of features (B,D,h,w)."""


class ASPP(Head):
    """Sum one atrous branch a rate.

    Args:
        branches: one module a rate, each (B,D,h,w) → (B,C,h,w).
        classifiers: the layers of the branches that no pretrained file holds.
        pool: applied before the branches.
    """

    def __init__(
        self,
        branches: Sequence[nn.Module],
        classifiers: Sequence[nn.Conv2d],
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.pool = pool or nn.Identity()
        self.branches = nn.ModuleList(branches)
        self._classifiers = tuple(classifiers)
        for conv in classifiers:  # the released prototxt's fillers
            nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def new_layers(self) -> tuple[nn.Module, ...]:
        """Return the layers trained from scratch, at a higher learning rate: the classifiers."""
        return self._classifiers

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (B,C,h,w) of features (B,D,h,w)."""
        features = self.pool(features)
        logits = self.branches[0](features)
        for branch in self.branches[1:]:
            logits = logits + branch(features)
        return logits


def resnet_aspp(in_channels: int, num_classes: int, atrous_rates: tuple[int, ...]) -> ASPP:
    """Return the released ResNet-101 head: a biased 3×3 classifier a rate, nothing else."""
    convs = [atrous_conv(in_channels, num_classes, rate) for rate in atrous_rates]
    return ASPP(convs, convs)


def vgg_aspp(
    in_channels: int, num_classes: int, atrous_rates: tuple[int, ...], *, pool5a: bool
) -> ASPP:
    """Return a released VGG-16 head: fc6 (3×3, 1024) – fc7 (1×1, 1024) – fc8 (1×1, C) a rate.

    Args:
        in_channels: D.
        num_classes: C.
        atrous_rates: rates of fc6, one branch each.
        pool5a: the 3×3 average pooling before fc6 that only the LargeFOV release has.
    """
    branches, classifiers = [], []
    for rate in atrous_rates:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["fc6"] = atrous_conv(in_channels, 1024, rate)
        layers["relu6"] = nn.ReLU(inplace=True)
        layers["drop6"] = nn.Dropout(0.5)
        layers["fc7"] = nn.Conv2d(1024, 1024, 1)
        layers["relu7"] = nn.ReLU(inplace=True)
        layers["drop7"] = nn.Dropout(0.5)
        layers["fc8"] = classifier = nn.Conv2d(1024, num_classes, 1)
        branches.append(nn.Sequential(layers))
        classifiers.append(classifier)
    pool = nn.AvgPool2d(3, stride=1, padding=1) if pool5a else None  # counts the padding, as Caffe
    return ASPP(branches, classifiers, pool)


class ImagePooling(nn.Sequential):
    """Spread an image-level feature: global average, 1×1 convolution, normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return (B,256,h,w), constant over each image, of features (B,D,h,w)."""
        conv, norm = self
        x = conv(features.mean(dim=(2, 3), keepdim=True))
        if self.training and x.shape[0] == 1 and type(norm) is nn.BatchNorm2d:
            warnings.warn(
                "aspp_concat: a batch of one image has no statistics for the image pooling's batch "
                "normalization; its running averages are used. Train with 2 or more images a "
                "process, or with --trainer.sync_batchnorm true.",
                stacklevel=2,
            )
            x = F.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        else:
            x = norm(x)
        return F.relu(x).expand(-1, -1, *features.shape[-2:])


class ASPPConcat(Head):
    """Concatenate 1×1, one 3×3 a rate and image pooling; project and classify (DeepLabv3).

    Args:
        in_channels: D.
        num_classes: C.
        atrous_rates: rates of the 3×3 branches, in feature cells.
        width: channels of each branch and of the projection.
    """

    def __init__(
        self, in_channels: int, num_classes: int, atrous_rates: tuple[int, ...], width: int = 256
    ) -> None:
        super().__init__()
        convs = [nn.Conv2d(in_channels, width, 1, bias=False)]
        convs += [atrous_conv(in_channels, width, rate, bias=False) for rate in atrous_rates]
        self.branches = nn.ModuleList(_norm_relu(conv) for conv in convs)
        self.branches.append(ImagePooling(in_channels, width))
        self.project = _norm_relu(nn.Conv2d(len(self.branches) * width, width, 1, bias=False))
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (B,C,h,w) of features (B,D,h,w)."""
        pyramid = torch.cat([branch(features) for branch in self.branches], dim=1)
        return self.classifier(self.dropout(self.project(pyramid)))


def _norm_relu(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))


def build_head(
    name: HeadName | type[Head] | str,
    *,
    vgg: bool,
    in_channels: int,
    num_classes: int,
    atrous_rates: tuple[int, ...],
) -> Head:
    """Return a head with random weights.

    Args:
        name: one of ours; or a class of yours, or its name "module.Class".
        vgg: branches as released for VGG-16 instead of ResNet.
        in_channels: D.
        num_classes: C.
        atrous_rates: dilations of the 3×3 convolutions, in feature cells; none for `conv1x1`.

    Raises:
        ValueError: an unknown name; no rates, more than 64, or some that are not positive
            integers; more than one rate for `largefov`, any for `conv1x1`.
    """
    if isinstance(name, type):
        return name(in_channels, num_classes, atrous_rates)
    if "." in name:
        return class_of(name, Head)(in_channels, num_classes, atrous_rates)
    if name == "conv1x1":
        if atrous_rates:
            raise ValueError(
                f"head conv1x1 takes no atrous rates, got {list(atrous_rates)}; "
                "set --model.atrous_rates '[]'"
            )
        conv = nn.Conv2d(in_channels, num_classes, 1)
        return ASPP([conv], [conv])
    if len(atrous_rates) > MOST_RATES:
        raise ValueError(f"atrous_rates has {len(atrous_rates)} rates, at most {MOST_RATES} work")
    if not atrous_rates or any(
        type(rate) is not int or not 1 <= rate <= LARGEST_RATE for rate in atrous_rates
    ):
        raise ValueError(
            f"atrous_rates must be positive integers up to {LARGEST_RATE}, got {list(atrous_rates)}"
        )
    if name == "largefov" and len(atrous_rates) != 1:
        raise ValueError(
            f"head largefov takes one atrous rate (the paper's is 12), got {list(atrous_rates)}; "
            "set --model.atrous_rates '[12]'"
        )
    if name == "aspp_concat":
        return ASPPConcat(in_channels, num_classes, atrous_rates)
    if name in ("aspp", "largefov") and vgg:
        return vgg_aspp(in_channels, num_classes, atrous_rates, pool5a=name == "largefov")
    if name in ("aspp", "largefov", "aspp_3x3"):
        return resnet_aspp(in_channels, num_classes, atrous_rates)
    raise ValueError(f"head must be one of {', '.join(get_args(HeadName))}, got {name!r}")
