"""Shapes: a segmentation data set drawn on the fly, nothing to download.

Made so that what DeepLabv2 is about shows within minutes on a CPU: objects of one class from 10 to
100 pixels, thin structures, occlusion, textured backgrounds, colors that say nothing, and a class
that its surroundings tell apart: an `eye` is a disc of at most 25 pixels' radius with a ring around
it at a distance, so that a field of view which misses the ring takes it for a `disc` (only a disc
larger than any eye gives itself away; `max_disc: 25` leaves none). As in PASCAL VOC, a band of void
(255), here one pixel wide, runs around every object.

Everything is drawn from signed distances d(x, y) to an outline in pixels, negative inside: colors
are blended where |d| < ½; the mask holds the object where d < 0 and void where 0 ≤ d < 1.

The same world comes in a second style, as a source domain to adapt from: `night` has the shapes,
sizes and classes of `plain`, but less light, a blue cast and a noisier camera.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.random import Generator
from PIL import Image

from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.image import DataError
from deeplab_lit.data.split import Arrays, Split
from deeplab_lit.types import VOID

FIRST_INDEX = {"train": 0, "val": 1_000_000, "test": 2_000_000}
CLASSES = {
    "background": (0, 0, 0),
    "disc": (230, 60, 60),
    "square": (60, 160, 230),
    "triangle": (240, 200, 60),
    "cross": (120, 200, 90),
    "wire": (0, 220, 220),  # far from the light yellow of void, which surrounds it
    "eye": (200, 80, 220),
}
SIZE = 161  # 32·5 + 1: the feature grids of the paper's three scales match
MIN_RADIUS, MAX_RADIUS, MAX_EYE = 5, 50, 25  # pixels
DISC, SQUARE, TRIANGLE, CROSS, WIRE, EYE = range(1, 7)  # as in Shapes.classes; 0: background

X = np.arange(SIZE, dtype=np.float32)  # of the columns
Y = X[:, None]  # of the rows

Style = Literal["plain", "night"]
LIGHT = np.array([0.5, 0.55, 0.7], np.float32)[:, None, None]  # at night: of red, green, blue
HAZE, NOISE = np.float32(20), np.float32(4)  # at night: brightness of black, noise of a channel

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (x, y) from the center → d


class Shapes(SegmentationData):
    """Textured shapes drawn on the fly: 7 classes, 161×161 pixels, nothing to download.

    Args:
        train_size: number of training images.
        val_size: number of images of each of the splits val and test.
        draw_seed: another number gives another set of images; seed_everything does not.
        max_disc: greatest radius of a disc, in pixels. At 25, that of an eye, nothing but the ring
            tells the two apart.
        style: "plain", or "night" for a source domain: other images of the same classes and
            geometry, in less light, bluer and noisier.
    """

    classes = CLASSES

    def __init__(
        self,
        train_size: int = 10_000,
        val_size: int = 200,
        draw_seed: int = 0,
        max_disc: float = MAX_RADIUS,
        style: Style = "plain",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if draw_seed < 0:
            raise DataError(f"--data.draw_seed must be 0 or more, got {draw_seed}")
        if not MIN_RADIUS <= max_disc <= MAX_RADIUS:
            raise DataError(f"--data.max_disc must be in {MIN_RADIUS}…{MAX_RADIUS}, got {max_disc}")
        if style not in get_args(Style):
            styles = ", ".join(get_args(Style))
            raise DataError(f"--data.style must be one of {styles}, got {style!r}")
        self.sizes = {"train": train_size, "val": val_size, "test": val_size}
        self.draw_seed, self.max_disc, self.style = draw_seed, max_disc, style

    @property
    def title(self) -> str:
        """Return the name of the class, with the style where it is not the plain one."""
        name = type(self).__name__
        return name if self.style == "plain" else f"{name}/{self.style}"

    @property
    def id_space(self) -> str:
        """Return the title with what decides the image of an index."""
        return f"{self.title} {self.draw_seed} {float(self.max_disc)}"

    def split(self, name: str) -> "ShapesSplit":
        """Return the images 0… for train, 1,000,000… for val, 2,000,000… for test."""
        if name not in FIRST_INDEX:
            raise DataError(f"Shapes has no split {name!r}; it has {', '.join(FIRST_INDEX)}")
        if not 1 <= self.sizes[name] <= 1_000_000:
            raise DataError(f"Shapes {name}: 1 to 1,000,000 images, got {self.sizes[name]}")
        return ShapesSplit(
            range(FIRST_INDEX[name], FIRST_INDEX[name] + self.sizes[name]),
            self.draw_seed,
            self.max_disc,
            self.style,
        )


class ShapesSplit(Split):
    """Images drawn from their indices.

    Args:
        indices: what to draw.
        seed: of the whole set.
        max_disc: see `Shapes`.
        style: see `Shapes`.
    """

    def __init__(self, indices: range, seed: int, max_disc: float, style: Style) -> None:
        self.indices = indices
        self.ids = [str(index) for index in indices]
        self.seed, self.max_disc, self.style = seed, max_disc, style

    def read(self, index: int) -> Arrays:
        """Draw the `index`-th image."""
        return draw_sample(self.seed, self.indices[index], self.max_disc, self.style)


def draw_sample(
    seed: int, index: int, max_disc: float = MAX_RADIUS, style: Style = "plain"
) -> Arrays:
    """Draw the image and mask of an index: always the same for the same arguments.

    The styles share no mask, so that the labels of one say nothing about the images of the other.

    Returns:
        RGB image (161,161,3) uint8, and mask (161,161) uint8 in {0…6, 255}.
    """
    rng = np.random.default_rng((seed, index) if style == "plain" else (seed, index, 1))
    ground = _color(rng, 40, 215)
    grain = rng.standard_normal((SIZE, SIZE), dtype=np.float32) * np.float32(rng.uniform(5, 15))
    image = _cloth(rng, SIZE, SIZE)  # (3,161,161): rows of pixels are faster to add than colors
    image += ground
    image += grain
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(rng.integers(4, 9)):
        center = rng.uniform(0, SIZE, 2)
        angle = rng.uniform(0, 2 * np.pi)
        for label, distance, reach in _object(rng, max_disc):
            _paint(rng, image, mask, label, distance, reach, center, angle, ground)
    image = image if style == "plain" else _night(rng, image)
    return np.stack([*image.clip(0, 255, out=image).astype(np.uint8)], axis=-1), mask


def _color(rng: Generator, low: float, high: float) -> np.ndarray:
    """Draw a color (3,1,1) float32 with channels in low…high."""
    return rng.uniform(low, high, 3).astype(np.float32)[:, None, None]


def _night(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Dim (3,H,W) in 0…255, red most and blue least, and add haze and noise."""
    noise = rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32).transpose(2, 0, 1)
    return image.clip(0, 255) * LIGHT + (HAZE + NOISE * noise)


def _object(rng: Generator, max_disc: float) -> list[tuple[int, Distance, float]]:
    """Draw a random object: its layers from the bottom up, as (class, distance, farthest pixel)."""
    kind = rng.choice(
        [DISC, SQUARE, TRIANGLE, CROSS, WIRE, EYE], p=[0.14, 0.16, 0.16, 0.16, 0.16, 0.22]
    )
    r = float(np.exp(rng.triangular(np.log(MIN_RADIUS), np.log(35), np.log(MAX_RADIUS))))
    thickness = rng.uniform(5, 8)
    if kind == WIRE:
        length = rng.uniform(20, 80)
        return [(WIRE, _arc(rng.uniform(30, 200), length, thickness), length)]
    if kind == EYE:
        r = min(r, MAX_EYE)
        ring = r + rng.uniform(5, 20)
        return [(WIRE, _ring(ring, thickness), ring + thickness), (EYE, _disc(r), r)]
    if kind == DISC:
        r = min(r, max_disc)
    outline = {DISC: _disc, SQUARE: _square, TRIANGLE: _triangle, CROSS: _cross}[kind]
    return [(kind, outline(r), 1.3 * r)]


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)  # several times faster than np.hypot


def _disc(r: float) -> Distance:
    return lambda x, y: _length(x, y) - r


def _square(r: float) -> Distance:
    return lambda x, y: np.maximum(abs(x), abs(y)) - 0.85 * r


def _triangle(r: float) -> Distance:
    return lambda x, y: np.maximum(y, abs(x) * 0.866 - y * 0.5) - 0.65 * r


def _cross(r: float) -> Distance:
    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = abs(x), abs(y)
        bars = np.maximum(x - r, y - 0.4 * r), np.maximum(y - r, x - 0.4 * r)
        return np.minimum(*bars)

    return distance


def _ring(r: float, thickness: float) -> Distance:
    return lambda x, y: abs(_length(x, y) - r) - thickness / 2


def _arc(bend: float, length: float, thickness: float) -> Distance:
    """Draw a piece of a circle of radius `bend` that reaches `length` pixels from its middle."""
    return lambda x, y: np.maximum(
        abs(_length(x - bend, y) - bend) - thickness / 2, _length(x, y) - length
    )


def _paint(
    rng: Generator,
    image: np.ndarray,
    mask: np.ndarray,
    label: int,
    distance: Distance,
    reach: float,
    center: np.ndarray,
    angle: float,
    ground: np.ndarray,
) -> None:
    """Draw one layer over what is there, in the window that it can reach."""
    low = np.maximum(center - reach - 2, 0).astype(int)
    high = np.minimum(center + reach + 3, SIZE).astype(int)
    x = X[low[0] : high[0]] - np.float32(center[0])
    y = Y[low[1] : high[1]] - np.float32(center[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    d = distance(x * cos + y * sin, y * cos - x * sin)
    color = _color(rng, 20, 235)
    while abs(color - ground).max() < 70:  # to be seen, in at least one channel
        color = _color(rng, 20, 235)
    window = np.s_[..., low[1] : high[1], low[0] : high[0]]
    change = _pattern(rng, label, *d.shape)
    change += color
    change -= image[window]
    change *= (0.5 - d).clip(0, 1)
    image[window] += change
    pixels = mask[window]  # void, then the class, the lower of the two; faster than by index
    np.maximum(pixels, (d < 1) * np.uint8(VOID), out=pixels)
    np.minimum(pixels, VOID - (d < 0) * np.uint8(VOID - label), out=pixels)


def _pattern(rng: Generator, label: int, height: int, width: int) -> np.ndarray:
    """Paint a surface: chequered squares, striped triangles, speckled crosses, others shaded."""
    if label == CROSS:
        surface = rng.standard_normal((height, width), dtype=np.float32)
    elif label == SQUARE:
        angle, period = rng.uniform(0, np.pi), rng.uniform(8, 16)
        surface = _stripes(rng, height, width, angle, period)
        surface *= _stripes(rng, height, width, angle + np.pi / 2, period)
        surface = np.sign(surface)
    elif label == TRIANGLE:
        surface = np.sign(_stripes(rng, height, width, rng.uniform(0, np.pi), rng.uniform(8, 16)))
    else:
        surface = _stripes(rng, height, width, rng.uniform(0, np.pi), rng.uniform(120, 240))
    return _tint(rng, surface, rng.uniform(40, 80))


def _cloth(rng: Generator, height: int, width: int) -> np.ndarray:
    """Paint a background: blotches under faint stripes."""
    n = rng.integers(2, 24)
    small = rng.standard_normal((n, n), dtype=np.float32) * rng.uniform(0, 25)
    blotches = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    period = np.exp(rng.uniform(np.log(6), np.log(120)))
    stripes = _stripes(rng, height, width, rng.uniform(0, np.pi), period)
    return _tint(rng, np.asarray(blotches) + stripes * np.float32(rng.uniform(0, 10)), 1)


def _stripes(rng: Generator, height: int, width: int, angle: float, period: float) -> np.ndarray:
    """Return a wave in −1…1 across the direction `angle`, (height, width) float32."""
    cos, sin = 2 * np.pi * np.array([np.cos(angle), np.sin(angle)], np.float32) / np.float32(period)
    start = np.float32(rng.uniform(0, 2 * np.pi))
    return np.sin(X[:width] * cos + (Y[:height] * sin + start))


def _tint(rng: Generator, brightness: np.ndarray, strength: float) -> np.ndarray:
    """Color brightness at random: (height, width) → (3, height, width)."""
    return brightness * (strength * rng.uniform(0.3, 1, 3)).astype(np.float32)[:, None, None]
