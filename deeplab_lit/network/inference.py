"""Send images through a trained network: device, scales, windows, several views of each image.

DeepLabv2, Sec. 4.4: Cityscapes images are split "into overlapped regions", since a whole one does
not fit into memory. How large they are and how they are merged is not said; here logits are
averaged where windows overlap.

Letters: B batch · C classes · H×W image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from deeplab_lit.errors import UserError
from deeplab_lit.network.multiscale import check_scales, resize, scaled_size

if TYPE_CHECKING:  # torchvision, which it loads, takes a second, and `predict --help` needs none
    from deeplab_lit.network.deeplab import DeepLabV2

DEVICE_HELP = '"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".'
Blend = Literal["flat", "gaussian"]


class DeviceError(UserError, ValueError):
    """A device that torch does not know or that is not there."""


def device_of(name: str) -> torch.device:
    """Return the device of a name, once it is certain that it can be used.

    Args:
        name: as torch calls it, or "auto": the accelerator if there is one, else the CPU.

    Raises:
        DeviceError: there is no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"--device {name}: {str(error).splitlines()[0]}") from error


@dataclass
class Inference:
    """Options of inference; never part of a checkpoint.

    Args:
        scales: sizes at which images go through the network, fused by maximum. None: those that it
            was trained with.
        window: height and width of overlapping windows, in pixels, or one number for both; None:
            whole images.
        overlap: least share of a window that its neighbor covers too, from 0 to below 1.
        blend: how windows are averaged where they overlap: "flat", or "gaussian", which trusts
            their middle more.
        window_batch: windows that go through the network at once.
        flip: see each image mirrored too.
        tta_scales: see each image at these sizes, each time with all of `scales`. None: as it is.
        fuse: of the probabilities of the mirrored and scaled views: "mean" or "max".
    """

    scales: tuple[float, ...] | None = None
    window: int | tuple[int, int] | None = None
    overlap: float = 0.25
    blend: Blend = "flat"
    window_batch: int = 1
    flip: bool = False
    tta_scales: tuple[float, ...] | None = None
    fuse: Literal["mean", "max"] = "mean"

    def __post_init__(self) -> None:
        if self.scales is not None:
            self.scales = check_scales(self.scales)
        if self.tta_scales is not None:
            self.tta_scales = check_scales(self.tta_scales)
        if (size := self._window()) is not None:
            self.window = size
            if min(size) < 33:  # 5 feature cells of stride 8, which see next to nothing
                raise ValueError(f"window must be from 33 pixels up, got {list(size)}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be from 0 to below 1, got {self.overlap}")
        if self.window_batch < 1:
            raise ValueError(f"window_batch must be at least 1, got {self.window_batch}")

    def _window(self) -> tuple[int, int] | None:
        """Return height and width of a window; None: images stay whole."""
        if self.window is None:
            return None
        height, width = (self.window,) * 2 if isinstance(self.window, int) else self.window
        return height, width

    def __call__(self, net: "DeepLabV2", images: Tensor) -> Tensor:
        """Return the logits of images; of several views, logarithms of their fused probabilities.

        The softmax of either is the probabilities.

        Args:
            net: as trained.
            images: (B,3,H,W) RGB, uint8 or float in 0…255.

        Returns:
            (B,C,H,W) float32.
        """
        views = self._views()
        if views == [(1.0, False)]:
            return self._windows(net, images)
        size = images.shape[-2:]
        fused = torch.empty(0)  # until the first view
        for scale, mirrored in views:
            view = images
            if scale != 1:
                at_scale = scaled_size(size, scale, align_corners=net.align_corners)
                view = resize(images.float(), at_scale, align_corners=net.align_corners)
            logits = self._windows(net, view.flip(-1) if mirrored else view)
            logits = logits.flip(-1) if mirrored else logits
            probabilities = resize(logits, size, align_corners=net.align_corners).softmax(dim=1)
            if not len(fused):
                fused = probabilities
            elif self.fuse == "mean":  # the sum, which softmax makes the mean
                fused += probabilities
            else:
                fused = torch.maximum(fused, probabilities)
        return fused.log()

    def _views(self) -> list[tuple[float, bool]]:
        """Return the views of an image: its size relative to the image, and whether mirrored."""
        mirrored = (False, True) if self.flip else (False,)
        return [(scale, flip) for scale in self.tta_scales or (1.0,) for flip in mirrored]

    def _windows(self, net: "DeepLabV2", images: Tensor) -> Tensor:
        """Return the logits of one view, whole or from windows."""
        window = self._window()
        if window is None:
            return net(images, self.scales)
        return sliding_window(
            lambda crops: net(crops, self.scales),
            images,
            window,
            overlap=self.overlap,
            blend=self.blend,
            window_batch=self.window_batch,
        )

    def settings(self, net: "DeepLabV2") -> dict[str, Any]:
        """Return what decides about the result, for records: the options that do something."""
        settings: dict[str, Any] = {"scales": list(self.scales or net.scales)}
        if (window := self._window()) is not None:
            settings["window"] = list(window)
            settings |= {"overlap": self.overlap, "blend": self.blend}
        if self.flip:
            settings["flip"] = True
        if self.tta_scales:
            settings["tta_scales"] = list(self.tta_scales)
        if len(self._views()) > 1:
            settings["fuse"] = self.fuse
        return settings

    def cost(self, net: "DeepLabV2", size: Sequence[int]) -> tuple[int, float]:
        """Count the passes through the network that an image takes, and their pixels.

        Args:
            net: as trained.
            size: height and width of the image.

        Returns:
            The number of passes; and their pixels as a multiple of the image's.
        """
        scales = self.scales or net.scales
        passes, pixels = 0, 0.0
        for scale, _ in self._views():
            view = scaled_size(size, scale, align_corners=net.align_corners)
            window = self._window() or view
            rows, columns = windows_of(view, window, self.overlap)
            number = len(rows) * len(columns)
            area = min(window[0], view[0]) * min(window[1], view[1])
            passes += number * len(scales)
            pixels += number * area * sum(scale**2 for scale in scales)
        return passes, pixels / math.prod(size)

    def in_words(self, net: "DeepLabV2", size: Sequence[int]) -> str:
        """Say what an image (height, width) costs."""
        passes, pixels = self.cost(net, size)
        many = "pass" if passes == 1 else "passes"
        return (
            f"{passes} {many} through the network for an image of {size[1]}×{size[0]}, "
            f"{pixels:.2f} times its pixels"
        )


def sliding_window(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    window: tuple[int, int],
    *,
    overlap: float,
    blend: Blend,
    window_batch: int,
) -> Tensor:
    """Return the logits of images, computed from overlapping windows of them.

    An image that a window covers goes through the network as it is: the result is equal to the
    bit. Beside the network's own memory it takes that of the result and of one batch of windows.

    Args:
        network: images to logits (·,C,·,·) of the same size.
        images: (B,3,H,W).
        window: height and width in pixels; what is larger than the image is cut to it.
        overlap: least share of a window that its neighbor covers too, 0 ≤ overlap < 1.
        blend: weight of a window's pixels: "flat", or "gaussian", which falls from 1 in the middle
            with a deviation of an eighth of the window.
        window_batch: windows that go through the network at once.

    Returns:
        (B,C,H,W).
    """
    height, width = images.shape[-2:]
    rows, columns = windows_of((height, width), window, overlap)
    if len(rows) == len(columns) == 1:
        return network(images)
    h, w = min(window[0], height), min(window[1], width)
    weight = _weight(h, blend).outer(_weight(w, blend)).to(images.device)
    weights = weight.new_zeros(height, width)
    for y in rows:
        for x in columns:
            weights[y : y + h, x : x + w] += weight
    places = [(i, y, x) for i in range(len(images)) for y in rows for x in columns]
    total = torch.empty(0)  # until the first logits say how many classes there are
    for start in range(0, len(places), window_batch):
        batch = places[start : start + window_batch]
        crops = torch.stack([images[i, :, y : y + h, x : x + w] for i, y, x in batch])
        for (i, y, x), logits in zip(batch, network(crops), strict=True):
            if not len(total):
                total = logits.new_zeros(len(images), len(logits), height, width)
            total[i, :, y : y + h, x : x + w] += weight * logits
    return total.div_(weights)


def windows_of(
    size: Sequence[int], window: Sequence[int], overlap: float
) -> tuple[list[int], list[int]]:
    """Return where windows begin: as few as the overlap allows, evenly spread.

    Args:
        size: height and width of the image.
        window: as for `sliding_window`.
        overlap: as for `sliding_window`.

    Returns:
        Their upper edges, and their left edges, in pixels.
    """
    rows, columns = (_starts(n, min(k, n), overlap) for n, k in zip(size, window, strict=True))
    return rows, columns


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Return where windows begin along one side."""
    step = max(window * (1 - overlap), 1)
    number = math.ceil((length - window) / step - 1e-9) + 1
    return [round(i * (length - window) / max(number - 1, 1)) for i in range(number)]


def _weight(length: int, blend: Blend) -> Tensor:
    """Return the weight (length,) of a window's pixels along one side."""
    if blend == "flat":
        return torch.ones(length)
    from_middle = torch.arange(length) - (length - 1) / 2
    return torch.exp(-0.5 * (from_middle / (length / 8)) ** 2)
