"""The same validation images under every setting."""

from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser

from deeplab_lit.ablate.branches import Fields, fields
from deeplab_lit.ablate.table import Row
from deeplab_lit.cli.defaults import DATA_SETS
from deeplab_lit.cli.parser import configs, joined_configs, read_config
from deeplab_lit.crf.options import CRFOptions
from deeplab_lit.data import SegmentationData
from deeplab_lit.errors import refused_arguments
from deeplab_lit.network.inference import Inference
from deeplab_lit.runs.folder import RunFolderError
from deeplab_lit.scoring.evaluation import Evaluation
from deeplab_lit.segment.segmenter import Segmenter
from deeplab_lit.types import Classes
from deeplab_lit.yaml_files import read_options

NUM_IMAGES = 6


@dataclass(frozen=True)
class Shown:
    """Pictures for the report, all of the first seed of each setting.

    Attributes:
        classes: name → color.
        samples: id, image (H,W,3) uint8, truth (H,W) uint8, prediction (H,W) uint8 a row.
        fields: what the branches see on those images.
    """

    classes: Classes
    samples: list[tuple[str, np.ndarray, np.ndarray, list[np.ndarray]]]
    fields: Fields


class Scoring(NamedTuple):
    """How a setting was scored."""

    data: SegmentationData
    inference: Inference
    crf: CRFOptions


def scoring_of(row: Row) -> Scoring:
    """What a setting was scored on, and how.

    Raises:
        ConfigError: the run's configuration cannot be read.
        RunFolderError: it names what does not exist, or data of a class that nobody has typed.
        DataError: the data cannot be found.
        MisconfigurationException: an option is out of range.
    """
    run = row.results[0].run
    path = run.validate.folder / "config.yaml"
    content = read_options(path)
    sections = {name: content.get(name) for name in ("data", "eval", "crf")}
    if missing := [name for name, section in sections.items() if section is None]:
        raise RunFolderError(f"{path} cannot be followed: it has no {missing[0]}")
    name = _class_of(sections["data"])
    if name not in DATA_SETS and name not in _typed_classes(run.fit.args):
        raise RunFolderError(
            f"{path} names data of the class {name!r:.80}, which neither deeplab_lit.data nor the "
            "sweep file has: it is not followed"
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(SegmentationData, "data")
    parser.add_argument("--eval", type=Evaluation)
    parser.add_argument("--crf", type=CRFOptions)
    try:
        with refused_arguments():
            made = parser.instantiate(parser.parse_object(sections))
    except ArgumentError as error:  # a class of the user's own that is not there any more
        raise RunFolderError(f"{path} cannot be followed: {error}") from error
    return Scoring(made.data, made.eval, made.crf)


def _class_of(data: Any) -> Any:
    """The name in a section `data`, which is that name or an object with it."""
    return data.get("class_path") if isinstance(data, dict) else data


def _typed_classes(args: Sequence[str]) -> set[Any]:
    """Names of data sets on a command line and in the configurations that it names."""
    words = [word.partition("=") for word in args]
    said = {value for name, _, value in words if name in ("--data", "--data.class_path")}
    return said | {
        _class_of(read_config(name).get("data")) for name in configs(joined_configs(args))
    }


def look(rows: Sequence[Row], num_images: int = NUM_IMAGES) -> Shown:
    """Run the network of each row on some validation images.

    Raises:
        RunFolderError, DataError: as `scoring_of`.
        CRFError: the backend that scored is not installed here.
    """
    data = scoring_of(rows[0]).data
    split = data.split(data.val_split)
    number = min(num_images, len(split.ids))
    chosen = [i * len(split.ids) // number for i in range(number)]
    read = [split.read(i) for i in chosen]
    predictions: list[list[np.ndarray]] = [[] for _ in chosen]
    for row in rows:
        scoring = scoring_of(row)
        crf = scoring.crf.build() if row.after_crf else None
        segment = Segmenter(row.network(), scoring.inference, crf)
        for masks, (image, _) in zip(predictions, read, strict=True):
            masks.append(segment(torch.from_numpy(image)))
    samples = [
        (split.ids[i], image, mask, masks)
        for i, (image, mask), masks in zip(chosen, read, predictions, strict=True)
    ]
    images = torch.cat([_batch(i) for i, _ in read if i.shape == read[0][0].shape])
    return Shown(data.classes, samples, fields(rows, images))


def _batch(image: np.ndarray) -> torch.Tensor:
    return torch.tensor(image).permute(2, 0, 1)[None]
