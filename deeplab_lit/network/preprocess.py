"""Preprocessing as the network's first layer, so that a weight file carries its own.

The authors subtract the mean color and do not divide (released data layer: B,G,R = 104.008,
116.669, 122.675; Caffe's values are in 0…255); torchvision also divides by a standard deviation.
"""

import warnings

import torch
from torch import Tensor, nn

# name of the weights' style: (mean, std) of R, G, B in 0…255
STATISTICS = {
    "caffe": ((122.675, 116.669, 104.008), (1.0, 1.0, 1.0)),
    "torchvision": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


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
