"""Training samples as others make them: decode, scale the whole image, pad, crop, flip.

Each pipeline takes a split, the side of the crop and a seed, and yields image, mask and id. The
scales, the padding (mean color, void) and the size of a sample are the paper's in all of them; how
images are resized is what each library does by default.
"""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from deeplab_lit.data.decode import FORMATS
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.transforms import MEAN_COLOR
from deeplab_lit.types import VOID

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
MEAN_BGR = np.array([104.008, 116.669, 122.675], np.float32)

Samples = Iterator[tuple[Any, Any, str]]
Pipeline = Callable[[FileSplit, int, int], Samples]


def decoded(split: FileSplit, crop: int, seed: int) -> Samples:
    """Read the files and nothing more, with OpenCV and Pillow: no pipeline is faster than this."""
    for pair in split.pairs:
        image = cv2.imread(str(pair.image), cv2.IMREAD_COLOR)
        yield image, np.asarray(Image.open(pair.mask, formats=FORMATS)), pair.id


def opencv_float32(split: FileSplit, crop: int, seed: int) -> Samples:
    """Make the samples that most ports train on: float32, mean color taken off, int64 masks."""
    return _opencv(split, crop, seed, as_float=True)


def opencv_uint8(split: FileSplit, crop: int, seed: int) -> Samples:
    """Make the same samples in uint8."""
    return _opencv(split, crop, seed, as_float=False)


def _opencv(split: FileSplit, crop: int, seed: int, *, as_float: bool) -> Samples:
    rng = np.random.default_rng(seed)
    for pair in split.pairs:
        image = cv2.imread(str(pair.image), cv2.IMREAD_COLOR)
        assert image is not None, pair.image
        if as_float:
            image = image.astype(np.float32)
        mask = np.asarray(Image.open(pair.mask, formats=FORMATS))
        mask = mask.astype(np.int32) if as_float else mask
        scale = rng.choice(SCALES)
        h, w = int(mask.shape[0] * scale), int(mask.shape[1] * scale)
        image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        resized = Image.fromarray(mask).resize((w, h), Image.Resampling.NEAREST)
        mask = np.asarray(resized, np.int64 if as_float else np.uint8)
        bottom, right = max(crop - h, 0), max(crop - w, 0)
        if bottom or right:
            sides = (0, bottom, 0, right, cv2.BORDER_CONSTANT)
            image = cv2.copyMakeBorder(image, *sides, value=MEAN_BGR.tolist())
            mask = np.pad(mask, ((0, bottom), (0, right)), constant_values=VOID)
        y = rng.integers(mask.shape[0] - crop + 1)
        x = rng.integers(mask.shape[1] - crop + 1)
        image, mask = image[y : y + crop, x : x + crop], mask[y : y + crop, x : x + crop]
        if rng.random() < 0.5:
            image, mask = np.fliplr(image), np.fliplr(mask)
        if as_float:
            image = image - MEAN_BGR
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        yield image, np.ascontiguousarray(mask), pair.id


def torchvision_v2(split: FileSplit, crop: int, seed: int) -> Samples:
    """Make samples by torchvision's transforms v2, of what Pillow decodes as in its data sets."""
    from torchvision.transforms import v2
    from torchvision.tv_tensors import Image as Picture
    from torchvision.tv_tensors import Mask

    torch.manual_seed(seed)
    fill = {Picture: list(MEAN_COLOR), Mask: VOID}
    cut = v2.Compose(
        [v2.RandomCrop(crop, pad_if_needed=True, fill=fill), v2.RandomHorizontalFlip()]
    )
    for pair in split.pairs:
        image = Picture(Image.open(pair.image).convert("RGB"))
        mask = Mask(np.array(Image.open(pair.mask, formats=FORMATS)))
        scale = SCALES[int(torch.randint(len(SCALES), ()))]
        size = [int(side * scale) for side in image.shape[-2:]]
        image, mask = v2.functional.resize(image, size), v2.functional.resize(mask, size)
        yield *cut(image, mask), pair.id


def albumentations(split: FileSplit, crop: int, seed: int) -> Samples:
    """Make samples by albumentations, images decoded by OpenCV."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks a server for its version
    import albumentations as A
    from albumentations.pytorch import ToTensorV2

    transform = A.Compose(
        [
            A.OneOf([A.RandomScale((s - 1, s - 1), p=1) for s in SCALES], p=1),
            A.PadIfNeeded(crop, crop, position="top_left", fill=MEAN_COLOR, fill_mask=VOID),
            A.RandomCrop(crop, crop),
            A.HorizontalFlip(p=0.5),
            ToTensorV2(),
        ],
        seed=seed,
    )
    for pair in split.pairs:
        image = cv2.imread(str(pair.image), cv2.IMREAD_COLOR_RGB)
        mask = np.asarray(Image.open(pair.mask, formats=FORMATS))
        sample = transform(image=image, mask=mask)
        yield sample["image"], sample["mask"], pair.id


PIPELINES: dict[str, Pipeline] = {
    "OpenCV, float32": opencv_float32,
    "OpenCV, uint8": opencv_uint8,
    "torchvision v2": torchvision_v2,
    "albumentations": albumentations,
}


def missing() -> str | None:
    """Return a sentence on what is not installed and so left out; None: nothing."""
    if find_spec("albumentations") is not None:
        return None
    return "albumentations is left out: not installed (pip install albumentations)"
