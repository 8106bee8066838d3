"""Send images through a trained network: device, scales, windows, several views of each image.

DeepLabv2, Sec. 4.4: Cityscapes images are split "into overlapped regions", since a whole one does
not fit into memory. How large they are and how they are merged is not said; here logits are
averaged where windows overlap.

Domain adaptation shows the network 2048×1024 images at 1024×512 and scores its logits at 2048×1024
(AdaptSegNet, evaluate_cityscapes.py: PIL's BICUBIC; logits bilinear, corners aligned). BDL takes
the softmax on the coarse grid and enlarges that; here logits are enlarged, as AdaptSegNet's are.

Letters: B batch · C classes · H×W image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from deeplab_lit.errors import UserError
from deeplab_lit.network.multiscale import check_scales, resize, scaled_size
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.types import SMALLEST_SIDE, Filter, Size, check_size

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
        resize: [height, width] at which the network sees every image, in pixels; logits come back
            at the image's own size. None: it sees images as they are.
        resize_filter: of that: "bicubic" or "bilinear", antialiased like Pillow's.
    """

    scales: tuple[float, ...] | None = None
    window: int | Size | None = None
    overlap: float = 0.25
    blend: Blend = "flat"
    window_batch: int = 1
    flip: bool = False
    tta_scales: tuple[float, ...] | None = None
    fuse: Literal["mean", "max"] = "mean"
    resize: Size | None = None
    resize_filter: Filter = "bicubic"

    def __post_init__(self) -> None:
        if self.scales is not None:
            self.scales = check_scales(self.scales)
        if self.tta_scales is not None:
            self.tta_scales = check_scales(self.tta_scales)
        if (size := self._window()) is not None:
            self.window = size
            if min(size) < SMALLEST_SIDE:
                raise ValueError(f"window must be from {SMALLEST_SIDE} pixels up, got {list(size)}")
        if self.resize is not None:
            self.resize = check_size("resize", self.resize)
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be from 0 to below 1, got {self.overlap}")
        if self.window_batch < 1:
            raise ValueError(f"window_batch must be at least 1, got {self.window_batch}")

    def _window(self) -> Size | None:
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
        size, views = images.shape[-2:], self._views()
        if self.resize is not None:
            images = resample(images, self.resize, self.resize_filter)
        if views == [(1.0, False)]:
            return self._at_size(net, images, size)
        fused = torch.empty(0)  # until the first view
        for scale, mirrored in views:
            view = images
            if scale != 1:
                shape = scaled_size(view.shape[-2:], scale, align_corners=net.align_corners)
                view = resize(view.float(), shape, align_corners=net.align_corners)
            logits = self._at_size(net, view.flip(-1) if mirrored else view, size)
            probabilities = (logits.flip(-1) if mirrored else logits).softmax(dim=1)
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

    def _at_size(self, net: "DeepLabV2", view: Tensor, size: Sequence[int]) -> Tensor:
        """Return the logits of one view, whole or from windows, at a size (height, width).

        Where images are resized, a whole view's go there from the network's grid in one step.
        """
        window = self._window()
        is_whole = window is None or all(
            k >= n for k, n in zip(window, view.shape[-2:], strict=True)
        )
        if self.resize is not None and is_whole:
            logits = net.logits(view, self.scales).fused.float()
        elif window is None:
            logits = net(view, self.scales)
        else:
            logits = sliding_window(
                lambda crops: net(crops, self.scales),
                view,
                window,
                overlap=self.overlap,
                blend=self.blend,
                window_batch=self.window_batch,
            )
        return resize(logits, size, align_corners=net.align_corners)

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
        if self.resize is not None:
            settings |= {"resize": list(self.resize), "resize_filter": self.resize_filter}
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
            view = scaled_size(self.resize or size, scale, align_corners=net.align_corners)
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
        seen = "" if self.resize is None else f" seen at {self.resize[1]}×{self.resize[0]}"
        return (
            f"{passes} {many} through the network for an image of {size[1]}×{size[0]}{seen}, "
            f"{pixels:.2f} times its pixels"
        )


def resample(images: Tensor, size: Size, resampling: Filter) -> Tensor:
    """Return images at a size, antialiased as Pillow does it, within one gray level.

    The width first, then the height, and each time rounded and cut to 0…255, where bicubic weights
    overshoot. (Of some sizes Pillow 13 takes the height first, which shows at hard edges.)

    Args:
        images: (B,3,H,W), uint8 or float in 0…255.
        size: height and width.
        resampling: "bicubic" or "bilinear".

    Returns:
        (B,3,*size), of the same type.
    """
    height, width = size
    x = images.float()
    for shape in ((x.shape[-2], width), (height, width)):
        if tuple(x.shape[-2:]) != shape:
            x = F.interpolate(x, shape, mode=resampling, align_corners=False, antialias=True)
            x = (x + 0.5).floor().clamp(0, 255)  # not `round`, which takes a half to the even side
    return x.to(images.dtype)


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
    starts = range(0, len(places), window_batch)
    for start in progress_bar(starts, desc="windows", unit="", leave=False, delay=3):
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
