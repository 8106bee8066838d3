"""The same validation images under every setting, and what the branches look at."""

from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentParser

import deeplab_lit
from deeplab_lit.ablate.table import Row
from deeplab_lit.data import DataError, SegmentationData
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.receptive_field import (
    effective_field,
    rate_of,
    share_of_real_taps,
    side_of,
    theoretical_field,
)
from deeplab_lit.training.run_folder import RunFolderError

NUM_IMAGES = 6


@dataclass(frozen=True)
class Branch:
    """What a branch of a setting's network sees.

    Attributes:
        name: its rate, in words.
        theoretical: field of view in pixels.
        effective: side of the square that holds 90 % of the gradient, in pixels.
        field: (H,W) the gradient.
        taps: share of the 3×3 kernel's taps on real features; null where it has none.
    """

    name: str
    theoretical: int
    effective: int
    field: torch.Tensor
    taps: float | None


@dataclass(frozen=True)
class Shown:
    """Pictures for the report, all of the first seed of each setting.

    Attributes:
        classes: name → colour.
        samples: id, image (H,W,3) uint8, truth (H,W) uint8, prediction (H,W) uint8 a row.
        branches: of each row's network.
        grid: cells (h,w) of the first image.
        rates: of all branches.
    """

    classes: dict[str, tuple[int, int, int]]
    samples: list[tuple[str, np.ndarray, np.ndarray, list[np.ndarray]]]
    branches: list[list[Branch]]
    grid: tuple[int, int]
    rates: list[int]


def data_of(row: Row) -> SegmentationData:
    """The data that a setting was scored on.

    Raises:
        RunFolderError: the run's configuration cannot be read, or names what does not exist.
        DataError: the data cannot be found.
    """
    path = row.results[0].trial.fit.folder / "config.yaml"
    try:
        section = yaml.safe_load(path.read_text("utf-8"))["data"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(SegmentationData, "data")
    try:
        return parser.instantiate(parser.parse_object({"data": section})).data
    except ArgumentError as error:  # a class of the user's own that is not there any more
        raise RunFolderError(f"{path}: its data cannot be set up: {error}") from error
    except ValueError as error:
        cause: BaseException = error  # the parser wraps it in its own words
        while isinstance(cause.__cause__, ValueError):
            cause = cause.__cause__
        raise DataError(str(cause)) from error


def look(rows: Sequence[Row], num_images: int = NUM_IMAGES) -> Shown:
    """Run the network of each row on some validation images.

    Raises:
        RunFolderError, DataError: as `data_of`.
    """
    data = data_of(rows[0])
    split = data.split(data.val_split)
    number = min(num_images, len(split.ids))
    chosen = [i * len(split.ids) // number for i in range(number)]
    read = [split.read(i) for i in chosen]
    predictions: list[list[np.ndarray]] = [[] for _ in chosen]
    branches, rates, grid = [], [], (0, 0)
    for row in rows:
        net = deeplab_lit.load(row.results[0].trial.fit.folder / "checkpoints/best.ckpt")
        with torch.inference_mode():
            for masks, (image, _) in zip(predictions, read, strict=True):
                masks.append(net(_batch(image))[0].argmax(0).to(torch.uint8).numpy())
        images = torch.cat([_batch(i) for i, _ in read if i.shape == read[0][0].shape])
        own, grid = _branches(net, images)
        branches.append(own)
        rates += [r for i in range(len(own)) if (r := rate_of(net, i)) is not None]
    samples = [
        (split.ids[i], image, mask, masks)
        for i, (image, mask), masks in zip(chosen, read, predictions, strict=True)
    ]
    return Shown(data.classes, samples, branches, grid, sorted(set(rates)))


def _branches(net: DeepLabV2, images: torch.Tensor) -> tuple[list[Branch], tuple[int, int]]:
    with torch.inference_mode():
        height, width = net.logits(images[:1], (1.0,)).fused.shape[-2:]
    found = []
    for i in range(len(net.head.branches)):
        rate = rate_of(net, i)
        field = effective_field(net, i, images)
        taps = None if rate is None else share_of_real_taps(rate, height, width)
        name = f"rate {rate}" if rate else f"branch {i + 1}"
        found.append(Branch(name, theoretical_field(net, i), side_of(field), field, taps))
    return found, (height, width)


def _batch(image: np.ndarray) -> torch.Tensor:
    return torch.tensor(image).permute(2, 0, 1)[None]
