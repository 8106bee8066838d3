"""Training augmentation in the authors' order: scale, pad bottom and right, crop, mirror.

Where asked for, the whole image is brought to one size before that, as domain adaptation has it
(AdaptSegNet, dataset/gta5_dataset.py: PIL's resize, BICUBIC for images and NEAREST for labels).

DeepLabv2, Sec. 4.1.2 ("randomly scaling the input images (from 0.5 to 1.5)") and the released
data_transformer.cpp: image bilinear, label nearest, scaled size truncated, padding with the mean
color and with void, crop uniform over the positions, mirror with probability ½.

Only the pixels that the crop needs are resized: the window is cut out of the image first. The
result is the crop of the whole image resized by the factor, to the bit where a multiple of 4 source
pixels is a whole number of scaled ones (the authors' scales), shifted by under a pixel elsewhere.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torchvision.transforms.v2 import functional as F

from deeplab_lit.types import LARGEST_SIDE, SMALLEST_SIDE, VOID, Filter, Size, check_size

CropSize = int | Size | Literal["whole"]
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
MEAN_COLOR = (123, 117, 104)  # RGB; the released mean 122.675, 116.669, 104.008 in whole numbers


@dataclass(frozen=True)
class ScaleRange:
    """Any scale in a range, all equally likely.

    Args:
        min: smallest, relative to the image.
        max: largest.
    """

    min: float
    max: float


class TrainTransform:
    """Resize if asked for; random scale, pad, crop, mirror; and, if asked for, color jitter.

    Args:
        crop_size: side of the crop in pixels, or its height and width; "whole": all of the scaled
            image. 321 is the paper's for PASCAL VOC; with (crop_size − 1) divisible by 32 the grids
            of the paper's three scales match.
        scales: the scales to choose from, or a range.
        color_jitter: brightness, contrast and saturation are multiplied by factors in
            1 ± color_jitter. 0 is the paper's.
        resize: height and width to which image and mask are brought first. None: they stay as they
            are.
        resize_filter: of the image; the mask takes the nearest pixel.
        mirror: mirror every other crop.

    Raises:
        ValueError: a size, scale or jitter out of range; or a crop that no scale of the resized
            image fills.
    """

    def __init__(
        self,
        crop_size: CropSize,
        scales: tuple[float, ...] | ScaleRange,
        color_jitter: float = 0.0,
        *,
        resize: Size | None = None,
        resize_filter: Filter = "bicubic",
        mirror: bool = True,
    ) -> None:
        ends = (scales.min, scales.max) if isinstance(scales, ScaleRange) else scales
        ordered = not isinstance(scales, ScaleRange) or scales.min <= scales.max
        if not ends or not ordered or not all(0.01 <= scale <= 100 for scale in ends):
            raise ValueError(
                f"scales must be positive numbers or a range, in 0.01…100, got {scales}"
            )
        if isinstance(crop_size, int) and not SMALLEST_SIDE <= crop_size <= LARGEST_SIDE:
            raise ValueError(
                f"crop_size must be in {SMALLEST_SIDE}…{LARGEST_SIDE} pixels, got {crop_size}"
            )
        if not 0 <= color_jitter < 1:
            raise ValueError(f"color_jitter must be in [0, 1), got {color_jitter}")
        self.crop_size = crop_size
        self.scales = scales
        self.color_jitter = color_jitter
        self.resize = None if resize is None else check_size("resize", resize)
        self.resize_filter = resize_filter
        self.mirror = mirror
        self.crop = _sides(crop_size)
        self.largest_scale = max(ends)
        self.one_scale = len(set(ends)) == 1
        self._check_filled()

    def _check_filled(self) -> None:
        """Refuse a crop that would be padded whatever the scale, where the image's size is known.

        Raises:
            ValueError: it is.
        """
        if self.resize is None or self.crop is None:
            return
        largest = [_scaled(side, self.largest_scale) for side in self.resize]
        if any(side > most for side, most in zip(self.crop, largest, strict=True)):
            raise ValueError(
                f"crop_size {list(self.crop)} (height, width) is larger than what resize makes of "
                f"every image, {largest} at the largest scale: take a smaller crop_size, a larger "
                "resize, or crop_size whole"
            )

    def largest_output(self) -> Size | None:
        """Return the largest height and width that come out; None: they are the image's."""
        if self.crop is not None:
            return self.crop
        if self.resize is None:
            return None
        height, width = self.resize
        return _scaled(height, self.largest_scale), _scaled(width, self.largest_scale)

    def variants(self) -> int | None:
        """Return how many different images can come out of one; None: any number."""
        if self.crop is not None or self.color_jitter or not self.one_scale:
            return None
        return 2 if self.mirror else 1

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, rng: Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transform image (H,W,3) and mask (H,W), uint8 → (h,w,3) and (h,w), uint8.

        h×w is the crop's size; of whole images the scaled one.
        """
        if self.resize is not None:
            image = resized(image, self.resize, self.resize_filter)
            mask = resized(mask, self.resize, "nearest")
        if isinstance(self.scales, ScaleRange):
            scale = rng.uniform(self.scales.min, self.scales.max)
        else:
            scale = self.scales[rng.integers(len(self.scales))]
        crop = self.crop or (_scaled(mask.shape[0], scale), _scaled(mask.shape[1], scale))
        rows = _window(mask.shape[0], scale, crop[0], rng)
        columns = _window(mask.shape[1], scale, crop[1], rng)
        image, mask = _scale(image, mask, scale, rows, columns)
        image, mask = _pad(image, mask, crop)
        if rng.random() < 0.5 and self.mirror:
            image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
        if self.color_jitter:
            image = _jitter(image, rng.uniform(1 - self.color_jitter, 1 + self.color_jitter, 3))
        return image, mask


def resized(
    pixels: np.ndarray, size: Size, resampling: Literal["bicubic", "bilinear", "nearest"]
) -> np.ndarray:
    """Resize an image (H,W,3) or a mask (H,W), uint8, as Pillow does: antialiased, but nearest.

    Args:
        pixels: the image or the mask.
        size: height and width to come to.
        resampling: of images "bicubic" or "bilinear"; of masks "nearest", the pixel whose area
            holds the new pixel's center.
    """
    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), FILTERS[resampling]))


def _sides(crop_size: CropSize) -> Size | None:
    """Return a crop's height and width; None: the whole image."""
    if isinstance(crop_size, int):
        return crop_size, crop_size
    if isinstance(crop_size, str):
        if crop_size != "whole":
            raise ValueError(f"crop_size must be a number, a pair or whole, got {crop_size!r}")
        return None
    return check_size("crop_size", crop_size)


def _scaled(size: int, scale: float) -> int:
    """Return the pixels of a scaled side."""
    return max(int(size * scale), 1)


def _window(size: int, scale: float, crop: int, rng: Generator) -> tuple[int, int]:
    """Draw the first pixel and the number of pixels of a random crop along one scaled side."""
    scaled = _scaled(size, scale)
    return int(rng.integers(max(scaled - crop, 0) + 1)), min(crop, scaled)


def _scale(
    image: np.ndarray,
    mask: np.ndarray,
    scale: float,
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the window rows × columns, each (first, number), of image and mask scaled by `scale`."""
    if scale == 1:
        window = np.s_[rows[0] : sum(rows), columns[0] : sum(columns)]
        return image[window], mask[window]
    y = _resampling(mask.shape[0], scale, *rows)
    x = _resampling(mask.shape[1], scale, *columns)
    piece = image[y.source, x.source]
    thin = min(piece.shape[:2]) * scale < 1  # OpenCV would round to no pixel at all
    size = [max(round(n * scale), 1) for n in piece.shape[1::-1]] if thin else None
    piece = cv2.resize(piece, size, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    turned = cv2.transpose(mask.take(y.nearest, axis=0))  # rows are faster to gather than columns
    return piece[y.window, x.window], cv2.transpose(turned.take(x.nearest, axis=0))


class _Resampling(NamedTuple):
    source: slice  # the pixels to resize: the window's and a margin that bilinear weights reach
    window: slice  # the window within the resized source
    nearest: np.ndarray  # for each pixel of the window, the image pixel whose center is nearest


def _resampling(size: int, scale: float, first: int, number: int) -> _Resampling:
    start = max(int(first / scale) - 1, 0) // 4 * 4
    offset = int(first - start * scale)
    stop = start + math.ceil((offset + number) / scale) + 2
    nearest = start + ((offset + np.arange(number) + 0.5) / scale).astype(np.intp)
    return _Resampling(
        slice(start, stop), slice(offset, offset + number), nearest.clip(max=size - 1)
    )


def _pad(image: np.ndarray, mask: np.ndarray, crop: Size) -> tuple[np.ndarray, np.ndarray]:
    bottom, right = crop[0] - mask.shape[0], crop[1] - mask.shape[1]
    if bottom == right == 0:
        return image, mask
    sides = (0, bottom, 0, right, cv2.BORDER_CONSTANT)
    return (
        cv2.copyMakeBorder(image, *sides, value=MEAN_COLOR),
        cv2.copyMakeBorder(mask, *sides, value=VOID),
    )


def _jitter(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    brightness, contrast, saturation = factors.tolist()
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)
    x = F.adjust_saturation(
        F.adjust_contrast(F.adjust_brightness(x, brightness), contrast), saturation
    )
    return x.permute(1, 2, 0).numpy()
