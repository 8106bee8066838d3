"""Shapes: a segmentation data set drawn on the fly, nothing to download.

Made so that what DeepLabv2 is about shows within minutes on a CPU: objects of one class from 10 to
100 pixels, thin structures, occlusion, textured backgrounds, colors that say nothing, and a class
that its surroundings tell apart: an `eye` is a disc of at most 25 pixels' radius with a ring around
it at a distance, so that a field of view which misses the ring takes it for a `disc` (only a disc
larger than any eye gives itself away; `max_disc: 25` leaves none). As in PASCAL VOC, a band of void
(255), here one pixel wide, runs around every object.
"""

from deeplab_lit.data.datamodule import SegmentationData
from deeplab_lit.data.dataset import Arrays, Split
from deeplab_lit.data.draw import MAX_RADIUS, MIN_RADIUS, draw_sample
from deeplab_lit.data.image import DataError

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


class Shapes(SegmentationData):
    """Textured shapes drawn on the fly: 7 classes, 161×161 pixels, nothing to download.

    Args:
        train_size: number of training images.
        val_size: number of images of each of the splits val and test.
        draw_seed: another number gives another set of images; seed_everything does not.
        max_disc: greatest radius of a disc, in pixels. At 25, that of an eye, nothing but the ring
            tells the two apart.
    """

    classes = CLASSES

    def __init__(
        self,
        train_size: int = 10_000,
        val_size: int = 200,
        draw_seed: int = 0,
        max_disc: float = MAX_RADIUS,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if draw_seed < 0:
            raise DataError(f"--data.draw_seed must be 0 or more, got {draw_seed}")
        if not MIN_RADIUS <= max_disc <= MAX_RADIUS:
            raise DataError(f"--data.max_disc must be in {MIN_RADIUS}…{MAX_RADIUS}, got {max_disc}")
        self.sizes = {"train": train_size, "val": val_size, "test": val_size}
        self.draw_seed, self.max_disc = draw_seed, max_disc

    def split(self, name: str) -> "ShapesSplit":
        """Images 0… for train, 1,000,000… for val, 2,000,000… for test."""
        if name not in FIRST_INDEX:
            raise DataError(f"Shapes has no split {name!r}; it has {', '.join(FIRST_INDEX)}")
        if not 1 <= self.sizes[name] <= 1_000_000:
            raise DataError(f"Shapes {name}: 1 to 1,000,000 images, got {self.sizes[name]}")
        return ShapesSplit(
            range(FIRST_INDEX[name], FIRST_INDEX[name] + self.sizes[name]),
            self.draw_seed,
            self.max_disc,
        )


class ShapesSplit(Split):
    """Images drawn from their indices.

    Args:
        indices: what to draw.
        seed: of the whole set.
        max_disc: see `Shapes`.
    """

    def __init__(self, indices: range, seed: int, max_disc: float) -> None:
        self.indices = indices
        self.ids = [str(index) for index in indices]
        self.seed, self.max_disc = seed, max_disc

    def read(self, index: int) -> Arrays:
        """Draw the `index`-th image."""
        return draw_sample(self.seed, self.indices[index], self.max_disc)
