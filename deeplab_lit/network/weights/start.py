"""What training starts from: random weights, ImageNet's, or those of a file, as far as they fit."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from deeplab_lit.network.backbone import VGG16
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.class_order import (
    are_generic,
    differences,
    differing,
    is_reordered,
    moved,
)
from deeplab_lit.network.weights.formats import read_source
from deeplab_lit.network.weights.formats.own import strip
from deeplab_lit.network.weights.formats.source import Source, StateDict
from deeplab_lit.network.weights.imagenet import imagenet_source
from deeplab_lit.network.weights.read import WeightsError
from deeplab_lit.network.weights.state_dict import load_strictly, refuse_non_finite


def initialize(net: DeepLabV2, weights: str, classes: Iterable[str] = ()) -> Source | None:
    """Load what training starts from.

    Args:
        net: changed in place.
        weights: "none"; "imagenet", torchvision's weights for the backbone (and VGG-16's fc6 and
            fc7); or a file of any format of network/weights/formats. A file
            whose head does not fit, for another number of classes say, gives its backbone only
            (and VGG-16's fc6 and fc7), and
            a warning says so. So does one with as many classes, of which some stand at other
            indices.
        classes: names of the network's, by index; empty: not known.

    Returns:
        What was read; null for "none".

    Raises:
        WeightsError: the weights cannot be had, do not fit the network, or have the same classes
            in another order.
    """
    if weights == "none":
        if not isinstance(net.backbone, VGG16) and net.norm == "frozen":
            raise WeightsError(
                "weights none with norm frozen would train a ResNet without any normalization: set "
                "--model.norm batch, or start from weights"
            )
        return None
    if weights == "imagenet":
        _check_style(net, "torchvision", "torchvision's weights")
        source = imagenet_source(net.backbone_name)
    else:
        source = read_source(weights)
    _check_style(net, style_of(source) or net.style, weights)
    fitting = _with_head_for(source, list(classes), weights)
    load_source(net, fitting, weights)
    own = {
        "head": net.head_name,
        "atrous_rates": net.atrous_rates,
        "output_stride": net.output_stride,
        "align_corners": net.align_corners,
    }
    for name, here in own.items():
        there = fitting.network.get(name, here)
        there = tuple(there) if isinstance(there, list) else there
        if there != here and fitting.num_classes == net.num_classes:
            warnings.warn(
                f"{weights} was trained with {name} {there!s:.100}, this network has {here!s:.100}",
                stacklevel=2,
            )
    return source


def _with_head_for(source: Source, ours: list[str], path: str) -> Source:
    """The source, without its classifier where that is known to be for other classes.

    Raises:
        WeightsError: it has the same classes in another order.
    """
    theirs = list(source.classes or ())
    outputs = {len(value) for value in _under("head.", source.state).values() if value.ndim == 4}
    if len(ours) in outputs and (not theirs or are_generic(theirs)):
        warnings.warn(
            f"{path} does not name its classes: its head is kept, and its {len(ours)} classes are "
            "taken for those of the data, in their order",
            stacklevel=3,
        )
    if not ours or len(theirs) != len(ours) or are_generic(theirs):
        return source
    if not differing(theirs, ours):
        return source
    found = f"(index: weights → data; {differences(theirs, ours)})"
    if is_reordered(theirs, ours):
        raise WeightsError(
            f"{path} has the same classes in another order {found}: its head would learn on under "
            "wrong names. Bring the names, and the values in the masks, into the file's order"
        )
    if not moved(theirs, ours):
        warnings.warn(
            f"{path} names classes differently {found}; its head is kept, class by class",
            stacklevel=3,
        )
        return source
    warnings.warn(
        f"{path} is of other classes {found}: its head's classifier is left out and starts anew",
        stacklevel=3,
    )
    head = _under("head.", source.state)
    state = {k: v for k, v in source.state.items() if k not in head} | _fc6_and_fc7(head)
    return replace(source, state=state, num_classes=None)


def _check_style(net: DeepLabV2, style: str, source: str) -> None:
    if net.style != style:
        raise WeightsError(f"{source} needs --model.style {style}, not {net.style}")


def style_of(source: Source) -> str | None:
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
