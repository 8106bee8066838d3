r"""Train what is behind frozen layers on features that are kept: which trainings can, at what cost.

The result is the one of `--model.freeze` alone; only the time differs. It is worth it where images
come again as they are, so they are to be whole and at one scale, mirrored or not: of random crops
hardly one comes twice.

    python -m deeplab_lit.fit … --model.freeze backbone --model.feature_cache features \
      --loader.crop_size whole --loader.scales '[1.0]'
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.strategies import Strategy
from torch import nn

from deeplab_lit.atomic import WriteError, check_room
from deeplab_lit.data import DataError
from deeplab_lit.errors import UserError
from deeplab_lit.loading import DataModule
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.feature_cache import feature_shape, frozen_first
from deeplab_lit.network.multiscale import scaled_size
from deeplab_lit.text import plural


def cached_layers(net: DeepLabV2, frozen: Sequence[nn.Module], *, compile: bool) -> list[nn.Module]:
    """Return the first parts of a backbone, whose features can be kept.

    Args:
        net: the network.
        frozen: its modules that do not learn.
        compile: it is going to be compiled.

    Raises:
        ValueError: the first part learns; or there is an auxiliary head, or compilation, which
            want the layers themselves.
    """
    for name, is_set in (("aux_head", net.aux_head is not None), ("compile", compile)):
        if is_set:
            raise ValueError(f"feature_cache does not go with {name}: leave out one of them")
    layers = frozen_first(net.backbone.parts(), frozen)
    if not layers:
        raise ValueError(
            "feature_cache keeps what frozen first layers compute, but the first layer of the "
            "backbone learns: set --model.freeze backbone, or name its first parts there"
        )
    return layers


def check_comes_again(data: DataModule) -> None:
    """Refuse images that do not come again as they are: their features would only fill the disk.

    Raises:
        DataError: there are random crops, scales or colors, or images without labels.
    """
    if data.transform.variants() is None or data.unlabeled is not None:
        raise DataError(
            "--model.feature_cache keeps the features of images that come again as they are, and "
            "random crops, scales and colors or images without labels do not: set "
            "--loader.crop_size whole, one of --loader.scales, --loader.color_jitter 0 and no "
            "--unlabeled_data; or leave out --model.feature_cache"
        )


def check_whole_weights(strategy: Strategy) -> None:
    """Refuse strategies that split the weights, or load a checkpoint's when training has begun.

    Raises:
        UserError: names the strategy.
    """
    if strategy.restore_checkpoint_after_setup:
        raise UserError(
            "--model.feature_cache names features after the weights, which "
            f"{type(strategy).__name__} splits among processes: set --trainer.strategy ddp, or "
            "leave out --model.feature_cache"
        )


def cache_in_words(
    folder: str, net: DeepLabV2, layers: Sequence[nn.Module], data: DataModule, precision: object
) -> str:
    """Say what will be kept, where, and how much room it takes.

    Args:
        folder: as `--model.feature_cache` names it.
        net: the network.
        layers: its first, of `cached_layers`.
        data: of the training, with images that come again.
        precision: the trainer's, as "bf16-mixed"; None: 32 bit.

    Raises:
        WriteError: there is no such folder, and none can be made.
        NoRoomError: the disk has less room.
    """
    training, validation = data.train.training(), data.validation()
    image, _ = data.transform(*training.read(0), np.random.default_rng(0))
    sizes = [
        scaled_size(image.shape[:2], scale, align_corners=net.align_corners) for scale in net.scales
    ]
    shapes = [feature_shape(layers, *size) for size in sizes]
    number = (data.transform.variants() or 1) * len(training.ids) + len(validation.ids)
    each = (2 if "16" in str(precision) else 4) * sum(map(math.prod, shapes))
    place = Path(folder).expanduser().absolute()
    there = sum(file.stat().st_size for file in place.glob("*/*.pt"))
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"--model.feature_cache {folder} is no folder and cannot be made one "
            f"({error.strerror}): choose another place"
        ) from error
    check_room(place / "features", number * each - there, "--model.feature_cache")
    return (
        f"Features behind the first {len(layers)} of the backbone's parts are kept in {place}: of "
        f"{plural(number, 'image')}, {number * each / 1e9:,.2f} GB if all have the size of the "
        f"first; {there / 1e9:,.2f} GB are there"
    )
