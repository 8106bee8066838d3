"""Trained networks, from any weight file that the project can read."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.formats import read_source, translate
from deeplab_lit.network.weights.formats.own import NAME as DEEPLAB_LIT
from deeplab_lit.network.weights.formats.settings import DAMAGED
from deeplab_lit.network.weights.formats.source import Source, StateDict
from deeplab_lit.network.weights.formats.untrained import UNTRAINED
from deeplab_lit.network.weights.read import WeightsError, read_weight_file
from deeplab_lit.network.weights.start import load_source, style_of
from deeplab_lit.network.weights.state_dict import check_fit, load_strictly

__all__ = ["WeightsError", "backbone_alone", "build", "load", "read_checkpoint"]


def load(path: str | Path) -> DeepLabV2:
    """The network of a trained weight file, in eval mode.

    Args:
        path: a checkpoint of `fit` or `convert`, or a file of any format of
            network/weights/formats that has a head: what it is decides about backbone,
            head, rates, scales and preprocessing.

    Returns:
        The network; its attribute `classes` holds the names and RGB colors of the classes, or
        nothing where the file does not know them; `label_values` each class's value in the label
        files that it was trained on, or None.

    Raises:
        WeightsError: no such file, or not such weights.
    """
    source = read_source(path)
    net = build(source, path)
    net.classes, net.label_values = source.classes or {}, source.label_values
    return net.eval()


def build(source: Source, path: str | Path, allow_missing: tuple[str, ...] = ()) -> DeepLabV2:
    """The network that a file's weights belong to, with these weights.

    Args:
        source: the file, read.
        path: named in errors.
        allow_missing: our names of weights that may stay as they are initialized.

    Raises:
        WeightsError: it has no head, or does not say which network it is of; or does not fit it.
    """
    if source.num_classes is None:
        raise _no_head(source, path)
    net = _network(source, path)
    load_strictly(net, _filled(source.state, net, allow_missing), path)
    return net


def backbone_alone(
    source: Source, path: str | Path, allow_missing: tuple[str, ...] = ()
) -> StateDict:
    """The weights of a file without head; arguments and errors are those of `build`."""
    if not source.network:
        raise _no_head(source, path)
    net = _network(source, path)
    state = _filled(source.state, net, [k for k in allow_missing if k.startswith("backbone.")])
    load_source(net, replace(source, state=state), path)
    return state


def _filled(state: StateDict, net: DeepLabV2, allow_missing: Iterable[str]) -> StateDict:
    """With the initial values of weights that are not there and need not be."""
    own = net.state_dict()
    return {name: own[name] for name in allow_missing if name in own} | state


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint that `fit` or `convert` wrote.

    Raises:
        WeightsError: no such file, not such a checkpoint, or a damaged one.
    """
    content = read_weight_file(path)
    try:
        source = translate(content)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    if source.format == DEEPLAB_LIT and source.num_classes is None:
        raise _no_head(source, path)
    if source.format != DEEPLAB_LIT or type(content.get("global_step")) is not int:
        raise WeightsError(
            f"{path} is not a checkpoint that fit or convert wrote (format {source.format}, no "
            f"global_step in it); python -m deeplab_lit.convert {path} NEW.ckpt makes one of it"
        )
    with torch.device("meta"):  # only to see whether the weights would fit
        net = _network(source, path)
    check_fit(net, source.state, path)
    return content


def _network(source: Source, path: str | Path) -> DeepLabV2:
    """Of its settings, without its weights; for a file without head one of a single class."""
    branches = len(source.network.get("atrous_rates", ()))
    if branches > max(sum(key.startswith("head.") for key in source.state), 16):
        raise WeightsError(
            f"{path}: its atrous_rates are {branches:,}, but its head has not so many weights. "
            f"{DAMAGED}"
        )
    try:
        return DeepLabV2(source.num_classes or 1, **source.network)
    except ValueError as error:
        raise WeightsError(
            f"{path}: its settings describe no network: {error}. {DAMAGED}"
        ) from error


def _no_head(source: Source, path: str | Path) -> WeightsError:
    if source.format == DEEPLAB_LIT and not source.network:
        return WeightsError(
            f"{path} is not a checkpoint of deeplab_lit (no hyper_parameters.classes in it), so it "
            "does not say which network it belongs to; it can start training: --model.weights"
        )
    why = "without a segmentation head"
    if UNTRAINED in source.skipped.values():
        why = f"and {UNTRAINED}"
    return WeightsError(
        f"{path} holds a backbone ({source.format}) {why}: there is nothing to evaluate. Train "
        f"from it with --model.weights {path} --model.style {style_of(source) or 'torchvision'}"
    )
