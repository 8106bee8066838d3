"""Predictions of an ablation's networks for the same images, and their fields of view.

Each network, that of the first seed, is loaded once.

Letters: H×W image · h×w cells of the features.
"""

from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

import deeplab_lit
from deeplab_lit.ablate.results import best_checkpoint
from deeplab_lit.ablate.table import Row, by_training
from deeplab_lit.cli.parser import configs, joined_configs, read_config
from deeplab_lit.crf import DenseCRF
from deeplab_lit.data import SegmentationData
from deeplab_lit.errors import refused_arguments
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.head import ImagePooling
from deeplab_lit.network.inference import Inference
from deeplab_lit.network.receptive_field import (
    branches_of,
    effective_fields,
    middle_pixel,
    rate_of,
    share_of_real_taps,
    side_of,
    theoretical_field,
)
from deeplab_lit.runs.folder import RunFolderError
from deeplab_lit.runs.trained_on import INFERENCE, read_run
from deeplab_lit.segment.segmenter import Segmenter
from deeplab_lit.types import Classes

NUM_IMAGES = 6


class Sample(NamedTuple):
    """A validation image, and what the network of each row says about it.

    Attributes:
        id: name of the image.
        image: (H,W,3) uint8 RGB.
        truth: (H,W) uint8 class indices, VOID where unknown.
        predictions: (H,W) uint8 class indices, one array a row of the table.
    """

    id: str
    image: np.ndarray
    truth: np.ndarray
    predictions: list[np.ndarray]


@dataclass(frozen=True)
class Branch:
    """The field of view of a branch of a head.

    Attributes:
        name: its rate, in words.
        rate: rate of its 3×3 kernel; None: it has no such kernel.
        theoretical: side of its field of view in pixels; None: the whole image, as image pooling.
        effective: side of the square around the cell that holds 90 % of the gradient, in pixels.
        field: gradient (H,W), averaged over images.
        taps: share of the kernel's taps that fall on features, 0…1; None: it has no such kernel.
    """

    name: str
    rate: int | None
    theoretical: int | None
    effective: int
    field: Tensor
    taps: float | None


@dataclass(frozen=True)
class Panels:
    """Predictions and fields of view of the networks of all rows.

    Attributes:
        classes: name → color.
        samples: some validation images.
        branches: branches of each network, under the words for all rows that share it.
        grids: cells (h,w) of the features of the first image, under the same words.
    """

    classes: Classes
    samples: list[Sample]
    branches: dict[str, list[Branch]]
    grids: dict[str, tuple[int, int]]

    def rates(self) -> dict[tuple[int, int], list[int]]:
        """Return the rates on each grid, sorted; grids without any are left out."""
        rates: dict[tuple[int, int], set[int]] = {}
        for words, branches in self.branches.items():
            rates.setdefault(self.grids[words], set()).update(b.rate or 0 for b in branches)
        return {grid: sorted(each - {0}) for grid, each in rates.items() if each - {0}}

    def fields(self) -> dict[str, Tensor]:
        """Return the field (H,W) of each branch, under its setting and, on a new line, its name."""
        return {
            f"{words}\n{branch.name}": branch.field
            for words, branches in self.branches.items()
            for branch in branches
        }


def look(rows: Sequence[Row], num_images: int = NUM_IMAGES) -> Panels:
    """Run the first seed's network of each row on some validation images.

    Args:
        rows: rows of the table, at least one.
        num_images: at most so many images, spread over the split.

    Raises:
        ConfigError, RunFolderError, DataError: as `scoring_of`.
        CRFError: the backend that scored is not installed here.
        WeightsError: a checkpoint is damaged or gone.
    """
    scorings = {row.label: scoring_of(row) for row in rows}
    data = scorings[rows[0].label].data
    split = data.validation()
    number = min(num_images, len(split.ids))
    chosen = [i * len(split.ids) // number for i in range(number)]
    pixels = [split.read(i) for i in chosen]
    alike = [_batch(image) for image, _ in pixels if image.shape == pixels[0][0].shape]
    predictions: dict[str, list[np.ndarray]] = {}
    branches, grids = {}, {}
    for words, group in by_training(rows).items():
        net = deeplab_lit.load(best_checkpoint(group[0].results[0].run))
        for row in group:
            scoring = scorings[row.label]
            crf = scoring.crf if row.after_crf else None
            segment = Segmenter(net, scoring.inference, crf)
            masks = [segment(torch.from_numpy(image)) for image, _ in pixels]
            predictions[row.label] = [_indices(net, data.classes)[mask] for mask in masks]
        branches[words], grids[words] = fields_of_view(net, torch.cat(alike))
    samples = [
        Sample(split.ids[i], image, truth, [predictions[row.label][n] for row in rows])
        for n, (i, (image, truth)) in enumerate(zip(chosen, pixels, strict=True))
    ]
    return Panels(data.classes, samples, branches, grids)


def _indices(net: DeepLabV2, classes: Classes) -> np.ndarray:
    """Return the index among `classes` of each class of a network, (256,) uint8.

    A data set may have the network's classes in another order.
    """
    table = np.arange(256, dtype=np.uint8)
    if net.classes.keys() == classes.keys():
        table[: len(classes)] = [list(classes).index(name) for name in net.classes]
    return table


def _batch(image: np.ndarray) -> Tensor:
    """Return an image (H,W,3) as a batch (1,3,H,W)."""
    return torch.tensor(image).permute(2, 0, 1)[None]


def fields_of_view(net: DeepLabV2, images: Tensor) -> tuple[list[Branch], tuple[int, int]]:
    """Return what the branches of a network see, and the cells (h,w) of its features.

    Args:
        net: in eval mode.
        images: (B,3,H,W) RGB in 0…255, over which gradients are averaged.
    """
    with torch.inference_mode():
        height, width = net.logits(images[:1], (1.0,)).fused.shape[-2:]
    fields = effective_fields(net, images)
    branches = [_branch(net, i, field, (height, width)) for i, field in enumerate(fields)]
    return branches, (height, width)


def _branch(net: DeepLabV2, index: int, field: Tensor, grid: tuple[int, int]) -> Branch:
    module, rate = branches_of(net)[index], rate_of(net, index)
    pools = isinstance(module, ImagePooling)
    other = "image pooling" if pools else "whole head" if module is net.head else "1×1"
    return Branch(
        name=f"rate {rate}" if rate else other,
        rate=rate,
        theoretical=None if pools else theoretical_field(net, index),
        effective=side_of(field, middle_pixel(net, *field.shape)),
        field=field,
        taps=None if rate is None else share_of_real_taps(rate, *grid),
    )


class Scoring(NamedTuple):
    """Data and options with which a setting was scored."""

    data: SegmentationData
    inference: Inference
    crf: DenseCRF | None


def scoring_of(row: Row) -> Scoring:
    """Read on which data and how a setting was scored, from its run's config.yaml.

    Raises:
        ConfigError: the configuration cannot be read, or names a data set's class that nobody has
            typed.
        RunFolderError: it names what does not exist.
        DataError: the data cannot be found.
    """
    run = row.results[0].run
    path = run.validate.folder / "config.yaml"
    sections = {"data": None, "eval": INFERENCE, "crf": None}
    content = read_run(path, sections, typed=_typed_data_sets(run.fit.args))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(SegmentationData, "data")
    parser.add_argument("--eval", type=Inference, default=Inference())
    parser.add_argument("--crf", type=DenseCRF | None, default=None)
    try:
        with refused_arguments():
            built = parser.instantiate(parser.parse_object(content))
    except ArgumentError as error:  # an option that is no more, or a class that is gone
        raise RunFolderError(f"{path} cannot be followed: {error}") from error
    return Scoring(built.data, built.eval, built.crf)


def _typed_data_sets(args: Sequence[str]) -> set[str]:
    """Return the classes of data sets on a command line and in the configurations on it."""
    words = [word.partition("=") for word in args]
    options = {f"--{key}{end}" for key in ("data", "val_data") for end in ("", ".class_path")}
    typed = {value for name, _, value in words if name in options}
    contents = [read_config(name) for name in configs(joined_configs(args))]
    sections = [content.get(key) for content in contents for key in ("data", "val_data")]
    names = (s.get("class_path") if isinstance(s, dict) else s for s in sections)
    return typed | {name for name in names if isinstance(name, str)}
