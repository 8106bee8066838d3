"""DeepLabv2: RGB images in, logits at their size out (arXiv:1606.00915, Fig. 1 without the CRF).

Preprocessing is the network's first layer, so that a weight file carries its own. The authors
subtract the mean color and do not divide (released data layer: B,G,R = 104.008, 116.669, 122.675;
Caffe's values are in 0…255); torchvision also divides by a standard deviation.

Letters: B batch · C classes · D features · H×W image · h×w feature cells.
"""

import inspect
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from deeplab_lit.network.backbone import Backbone, BackboneName, Norm, Style, build_backbone
from deeplab_lit.network.head import Head, HeadName, build_head
from deeplab_lit.network.multiscale import (
    ScaleLogits,
    at_scales,
    check_scales,
    fuse,
    multiscale_logits,
    resize,
)
from deeplab_lit.types import Classes, path_of

# name of the weights' style: (mean, std) of R, G, B in 0…255
STATISTICS = {
    "caffe": ((122.675, 116.669, 104.008), (1.0, 1.0, 1.0)),
    "torchvision": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


class DeepLabV2(nn.Module):
    """Preprocessing, atrous backbone, head, and multi-scale inputs around them.

    Args:
        num_classes: C, void not counted.
        backbone: the atrous feature extractor; or a class of yours, a subclass of
            `network.backbone.Backbone`.
        output_stride: image pixels per feature cell: 8 (the paper's), 16 or 32.
        head: "aspp" sums one atrous branch a rate (DeepLabv2); "largefov" is one branch; "conv1x1"
            a classifier alone; "aspp_concat" the five-branch form with image pooling (DeepLabv3);
            "aspp_3x3" ResNet's form of "aspp" behind VGG-16 too.
            Or a class of yours, a subclass of `network.head.Head`.
        atrous_rates: dilations of the head's 3×3 convolutions, in feature cells, one branch each.
            ASPP-L is 6, 12, 18, 24; ASPP-S is 2, 4, 8, 12; LargeFOV is 12; conv1x1 has none. They
            are not adapted to the output stride: 12 cells are 96 pixels at stride 8, 192 at 16.
        scales: sizes at which the image goes through the network; logits are fused by maximum.
            (1, 0.75, 0.5) is the paper's MSC, (1,) is a single scale.
        style: whose weights fit: "caffe" (the authors'; stride on the 1×1, sizes rounded up, mean
            color only) or "torchvision" (stride on the 3×3, rounded down, mean and std).
        norm: "frozen" batch normalization (the paper's), "batch" to train it, as from scratch, or
            "frozen_affine": statistics follow the training's batches, weight and bias are fixed
            (AdaptSegNet and its followers). Every image that goes through the network in training
            moves the statistics with which it is evaluated: those of a target domain adapt them,
            whatever their loss.
        align_corners: convention of all bilinear resizing; the authors' Caffe layer has true.
        channels_last: keep activations in the memory order that mixed precision likes.
        gradient_checkpointing: recompute the backbone's activations: less memory, more time.
        aux_head: a second head like the first, on the features of layer3 (conv4), for training only
            (AdaptSegNet); `logits_and_aux` gives its logits.

    Attributes:
        classes: name → RGB color, in the order of the class indices; empty: not known.
        label_values: class → its value in the label files of the training; None: not known.
        backbone_name: as files have it; of a class of yours "module.Class".
        head_name: likewise.

    Raises:
        ValueError: an argument outside what is listed here.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: BackboneName | type[Backbone] = "resnet101",
        output_stride: int = 8,
        head: HeadName | type[Head] = "aspp",
        atrous_rates: tuple[int, ...] = (6, 12, 18, 24),
        scales: tuple[float, ...] = (1.0, 0.75, 0.5),
        style: Style = "torchvision",
        norm: Norm = "frozen",
        align_corners: bool = True,
        channels_last: bool = False,
        gradient_checkpointing: bool = False,
        aux_head: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.classes: Classes = {}
        self.label_values: dict[str, int] | None = None
        self.scales = check_scales(scales)
        self.style = style
        self.norm = norm
        self.backbone_name = path_of(backbone)
        self.output_stride = output_stride
        self.head_name = path_of(head)
        self.atrous_rates = tuple(atrous_rates)
        self.align_corners = align_corners
        self.preprocess = Preprocess(style)
        self.backbone = build_backbone(backbone, output_stride, style, norm)
        self.backbone.gradient_checkpointing = gradient_checkpointing
        build_one = partial(
            build_head,
            head,
            vgg=backbone == "vgg16",
            num_classes=num_classes,
            atrous_rates=self.atrous_rates,
        )
        self.head = build_one(in_channels=self.backbone.out_channels)
        self.aux_head: Head | None = None
        if aux_head:
            if self.backbone.aux_channels is None:
                raise ValueError(
                    f"aux_head is true, but the backbone {self.backbone_name} has no layer3 for an "
                    "auxiliary head: take resnet10_quarter or one of the larger ResNets, or leave "
                    "it out"
                )
            self.aux_head = build_one(in_channels=self.backbone.aux_channels)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)

    def forward(self, images: Tensor, scales: tuple[float, ...] | None = None) -> Tensor:
        """Return the logits at the images' own size.

        Args:
            images: (B,3,H,W) RGB, uint8 or float in 0…255.
            scales: instead of the network's own.

        Returns:
            (B,C,H,W), float32.
        """
        logits = self.logits(images, scales).fused
        return resize(logits.float(), images.shape[-2:], align_corners=self.align_corners)

    def logits(self, images: Tensor, scales: tuple[float, ...] | None = None) -> ScaleLogits:
        """Return the logits on the feature grid, fused and of each scale: what training scores.

        Args:
            images: (B,3,H,W) RGB, uint8 or float in 0…255.
            scales: instead of the network's own.

        Returns:
            (B,C,h,w) each.
        """
        scales = self.scales if scales is None else check_scales(scales)
        images = self.preprocess(images).contiguous(memory_format=self.memory_format)
        return multiscale_logits(self._dense, images, scales, align_corners=self.align_corners)

    def logits_and_aux(
        self, images: Tensor, scales: tuple[float, ...] | None = None
    ) -> tuple[ScaleLogits, ScaleLogits]:
        """Return what `logits` does, and the same of the auxiliary head: one pass for both.

        At output stride 32 the auxiliary head's grid is the finer one.

        Args:
            images: (B,3,H,W) RGB, uint8 or float in 0…255.
            scales: instead of the network's own.

        Raises:
            ValueError: the network has no auxiliary head.
        """
        if self.aux_head is None:
            raise ValueError("the network has no auxiliary head: set --model.aux_head true")
        scales = self.scales if scales is None else check_scales(scales)
        images = self.preprocess(images).contiguous(memory_format=self.memory_format)
        coarse, coarse_aux = [], []
        for at_scale in at_scales(images, scales, align_corners=self.align_corners):
            features, aux_features = self.backbone(at_scale, with_aux=True)
            coarse.append(self.head(features))
            coarse_aux.append(self.aux_head(aux_features))
        return (
            fuse(coarse, scales, align_corners=self.align_corners),
            fuse(coarse_aux, scales, align_corners=self.align_corners),
        )

    def _dense(self, images: Tensor) -> Tensor:
        """Return the coarse logits (B,C,h,w) of preprocessed images at one scale."""
        return self.head(self.backbone(images))

    def in_words(self) -> str:
        """Name backbone, head, atrous rates and scales, for people."""
        return (
            f"{self.backbone_name}, output stride {self.output_stride}, {self.head_name} "
            f"{list(self.atrous_rates)}, scales {list(self.scales)}"
        )

    def use_channels_last(self) -> None:
        """Keep weights and activations in the memory order that mixed precision likes."""
        self.memory_format = torch.channels_last
        self.to(memory_format=self.memory_format)

    def compile(self, *args, **kwargs) -> None:
        """Compile backbone and heads, in place: the names of the weights stay as they are."""
        for part in (self.backbone, self.head, self.aux_head):
            if part is not None:
                part.compile(*args, **kwargs)


def default_settings() -> dict[str, Any]:
    """Return the arguments of DeepLabV2 but for the number of classes, with their defaults."""
    parameters = inspect.signature(DeepLabV2).parameters.items()
    return {name: parameter.default for name, parameter in parameters if name != "num_classes"}


class Preprocess(nn.Module):
    """Subtract the mean color and divide by the standard deviation.

    Args:
        style: "caffe" or "torchvision", the convention that the backbone's weights were trained in.

    Attributes:
        mean: (1,3,1,1), of R, G, B in 0…255.
        std: (1,3,1,1), likewise; 1 where there is none.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, style: str) -> None:
        super().__init__()
        if style not in STATISTICS:
            raise ValueError(f"style must be one of {', '.join(STATISTICS)}, got {style!r}")
        mean, std = STATISTICS[style]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B,3,H,W), RGB, uint8 or float in 0…255, as float (B,3,H,W).

        Raises:
            ValueError: another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected RGB images (B,3,H,W), got shape {tuple(images.shape)}")
        if (
            images.is_floating_point()
            and images.device.type == "cpu"  # elsewhere the question would wait for the device
            and not torch.compiler.is_compiling()
            and 0 < images.amax() <= 1
        ):
            warnings.warn("no value above 1: float images are expected in 0…255", stacklevel=2)
        return (images - self.mean) / self.std
