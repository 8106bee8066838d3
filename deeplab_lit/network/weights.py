"""Weights: what training starts from, and how a trained network is loaded."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deeplab_lit.network.backbone import VGG16
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.files import WeightsError, read_weight_file
from deeplab_lit.network.formats import read_source, translate
from deeplab_lit.network.formats.own import NAME as DEEPLAB_LIT
from deeplab_lit.network.formats.own import strip
from deeplab_lit.network.formats.settings import DAMAGED
from deeplab_lit.network.formats.source import Source, StateDict
from deeplab_lit.network.formats.untrained import UNTRAINED
from deeplab_lit.network.imagenet import imagenet_source
from deeplab_lit.network.strict import check_fit, load_strictly, refuse_non_finite

__all__ = ["WeightsError", "backbone_alone", "build", "initialise", "load", "read_checkpoint"]


def load(path: str | Path) -> DeepLabV2:
    """The network of a trained weight file, in eval mode.

    Args:
        path: a checkpoint of `fit` or `convert`, or a file of any format of network/formats that
            has a head: what it is decides about backbone, head, rates, scales and preprocessing.

    Returns:
        The network; its attribute `classes` holds the names and RGB colours of the classes, or
        nothing where the file does not know them.

    Raises:
        WeightsError: no such file, or not such weights.
    """
    source = read_source(path)
    net = build(source, path)
    net.classes = source.classes or {}
    return net.eval()


def build(source: Source, path: str | Path, allow_missing: tuple[str, ...] = ()) -> DeepLabV2:
    """The network that a file's weights belong to, with these weights.

    Args:
        source: the file, read.
        path: named in errors.
        allow_missing: our names of weights that may stay as they are initialised.

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
        f"from it with --model.weights {path} --model.style {_style(source) or 'torchvision'}"
    )


def initialise(net: DeepLabV2, weights: str) -> Source | None:
    """Load what training starts from.

    Args:
        net: changed in place.
        weights: "none"; "imagenet", torchvision's weights for the backbone (and VGG-16's fc6 and
            fc7); or a file of any format of network/formats. A file whose head does not fit, for
            another number of classes say, gives its backbone only (and VGG-16's fc6 and fc7), and
            a warning says so.

    Returns:
        What was read; null for "none".

    Raises:
        WeightsError: the weights cannot be had or do not fit the network.
    """
    if weights == "none":
        if not isinstance(net.backbone, VGG16) and net.norm == "frozen":
            raise WeightsError(
                "weights none with norm frozen would train a ResNet without any normalisation: set "
                "--model.norm batch, or start from weights"
            )
        return None
    if weights == "imagenet":
        _check_style(net, "torchvision", "torchvision's weights")
        source = imagenet_source(net.backbone_name)
    else:
        source = read_source(weights)
    _check_style(net, _style(source) or net.style, weights)
    load_source(net, source, weights)
    own = {
        "head": net.head_name,
        "atrous_rates": net.atrous_rates,
        "output_stride": net.output_stride,
        "align_corners": net.align_corners,
    }
    for name, here in own.items():
        there = source.network.get(name, here)
        there = tuple(there) if isinstance(there, list) else there
        if there != here and source.num_classes == net.num_classes:
            warnings.warn(
                f"{weights} was trained with {name} {there}, this network has {here}", stacklevel=2
            )
    return source


def _check_style(net: DeepLabV2, style: str, source: str) -> None:
    if net.style != style:
        raise WeightsError(f"{source} needs --model.style {style}, not {net.style}")


def _style(source: Source) -> str | None:
    """Of the weights; a state dict alone tells by its preprocessing, or not at all."""
    if "style" in source.network or "preprocess.std" not in source.state:
        return source.network.get("style")
    divided = source.state["preprocess.std"].max() > 1
    return "torchvision" if divided else "caffe"


def load_source(net: DeepLabV2, source: Source, path: str | Path) -> None:
    """Load into a network what fits: all, or the backbone (and VGG-16's fc6 and fc7), said aloud.

    Raises:
        WeightsError: the backbone does not fit.
    """
    own, state = _under("head.", net.state_dict()), _under("head.", source.state)
    preprocess = _under("preprocess.", net.state_dict())
    if _shapes(own) == _shapes(state):
        load_strictly(net, preprocess | source.state, path)
        return
    load_strictly(net.backbone, strip(source.state, "backbone."), path)
    inner = _inner(state, own)
    refuse_non_finite(inner, path)
    net.load_state_dict(inner, strict=False)
    if brought := _under("preprocess.", source.state):
        load_strictly(net.preprocess, strip(brought, "preprocess."), path)
    if len(state) > len(_fc6_and_fc7(state)) or (state and not inner):
        what = "the backbone, fc6 and fc7 are" if inner else "only the backbone is"
        warnings.warn(f"{path}: its head does not fit; {what} loaded from it", stacklevel=3)


def _under(prefix: str, state: StateDict) -> StateDict:
    return {key: value for key, value in state.items() if key.startswith(prefix)}


def _shapes(state: StateDict) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def _inner(state: StateDict, own: StateDict) -> StateDict:
    """VGG-16's fc6 and fc7, where they fit; a branch without classifier goes into every branch."""
    inner, wanted = _fc6_and_fc7(state), _fc6_and_fc7(own)
    if len(inner) == len(state) == 4:
        layers = {key.split(".", 3)[3]: value for key, value in inner.items()}
        inner = {key: layers.get(key.split(".", 3)[3], torch.empty(0)) for key in wanted}
    return inner if _shapes(inner) == _shapes(wanted) else {}


def _fc6_and_fc7(head: StateDict) -> StateDict:
    return {key: value for key, value in head.items() if ".fc6." in key or ".fc7." in key}
