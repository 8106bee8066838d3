"""Trained networks, from any weight file that the project can read; weights are loaded strictly."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights import DEEPLAB_LIT
from deeplab_lit.network.weights.fetch import weight_file
from deeplab_lit.network.weights.formats import read_source, translate
from deeplab_lit.network.weights.formats.own import DAMAGED
from deeplab_lit.network.weights.formats.source import (
    UNTRAINED,
    Source,
    StateDict,
    below,
    fc6_and_fc7,
    strip,
)
from deeplab_lit.network.weights.read import WeightsError, read_weight_file
from deeplab_lit.types import ClassPathError

__all__ = ["WeightsError", "backbone_alone", "build", "load", "load_strictly", "read_checkpoint"]


def load(path: str | Path) -> DeepLabV2:
    """Load the network of a trained weight file, in eval mode, without an auxiliary head.

    Args:
        path: a checkpoint of `fit` or `convert`, or a file of any format of
            network/weights/formats that has a head: what it is decides about backbone,
            head, rates, scales and preprocessing. Or a name of published weights.

    Returns:
        The network, with the `classes` and `label_values` that the file says.

    Raises:
        WeightsError: there is no such file, or it holds no such weights.
    """
    path = weight_file(path)
    source = without_aux_head(read_source(path))
    net = build(source, path)
    net.classes, net.label_values = source.classes or {}, source.label_values
    return net.eval()


def without_aux_head(source: Source) -> Source:
    """Return the source as it is evaluated: the auxiliary head is for training only."""
    state = {k: v for k, v in source.state.items() if not k.startswith("aux_head.")}
    network = {k: v for k, v in source.network.items() if k != "aux_head"}
    return replace(source, state=state, network=network)


def build(source: Source, path: str | Path, allow_missing: tuple[str, ...] = ()) -> DeepLabV2:
    """Build the network that a file's weights belong to, with these weights.

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
    load_strictly(net, _with_initial(source.state, net, allow_missing), path)
    return net


def backbone_alone(
    source: Source, path: str | Path, allow_missing: tuple[str, ...] = ()
) -> StateDict:
    """Return the weights of a file without head; arguments and errors are those of `build`."""
    if not source.network:
        raise _no_head(source, path)
    net = _network(source, path)
    names = [name for name in allow_missing if name.startswith("backbone.")]
    state = _with_initial(source.state, net, names)
    load_fitting(net, replace(source, state=state), path)
    return state


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that `fit` or `convert` wrote, whole.

    Raises:
        WeightsError: there is no such file, it is not such a checkpoint, or a damaged one.
    """
    content = read_weight_file(path)
    check_checkpoint(content, path)
    return content


def check_checkpoint(content: dict[str, Any], path: str | Path) -> None:
    """Refuse what is not a checkpoint that `fit` or `convert` wrote, or a damaged one.

    Args:
        content: of the file.
        path: named in errors.

    Raises:
        WeightsError: it is none.
    """
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


def load_fitting(net: DeepLabV2, source: Source, path: str | Path) -> None:
    """Load into a network what fits: all, or the backbone (and VGG-16's fc6 and fc7), said aloud.

    Args:
        net: changed in place.
        source: the file, read.
        path: named in errors and warnings.

    Raises:
        WeightsError: the backbone does not fit.
    """
    head, state = below("head.", net.state_dict()), below("head.", source.state)
    if _shapes(head) == _shapes(state):
        aux_head = below("aux_head.", net.state_dict())
        if _shapes(aux_head) != _shapes(below("aux_head.", source.state)):
            source = without_aux_head(source)
            if aux_head:
                warnings.warn(
                    f"{path} has no auxiliary head that fits: the network's starts anew",
                    stacklevel=3,
                )
        initial = aux_head | below("preprocess.", net.state_dict())
        load_strictly(net, initial | source.state, path)
        return
    load_strictly(net.backbone, strip(source.state, "backbone."), path)
    inner = _inner(state, head)
    refuse_non_finite(inner, path)
    net.load_state_dict(inner, strict=False)
    if statistics := below("preprocess.", source.state):
        load_strictly(net.preprocess, strip(statistics, "preprocess."), path)
    if len(state) > len(fc6_and_fc7(state)) or (state and not inner):
        loaded = "the backbone, fc6 and fc7 are" if inner else "only the backbone is"
        warnings.warn(f"{path}: its head does not fit; {loaded} loaded from it", stacklevel=3)


def _inner(state: StateDict, head: StateDict) -> StateDict:
    """Return VGG-16's fc6 and fc7 where they fit; a branch without classifier fits every branch."""
    inner, expected = fc6_and_fc7(state), fc6_and_fc7(head)
    if len(inner) == len(state) == 4:
        layers = {key.split(".", 3)[3]: value for key, value in inner.items()}
        inner = {key: layers.get(key.split(".", 3)[3], torch.empty(0)) for key in expected}
    return inner if _shapes(inner) == _shapes(expected) else {}


def _shapes(state: StateDict) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def load_strictly(module: nn.Module, state: StateDict, path: str | Path) -> None:
    """Load all weights of a module, or none.

    Args:
        module: changed in place.
        state: names as in the module's own state dict; counters of batches may be missing.
        path: named in errors.

    Raises:
        WeightsError: names or shapes are others, or there are values that are not finite.
    """
    check_fit(module, state, path)
    module.load_state_dict(_without_counters(state), strict=False)


def check_fit(module: nn.Module, state: StateDict, path: str | Path) -> None:
    """Refuse what `load_strictly` refuses, and load nothing."""
    expected, state = _without_counters(module.state_dict()), _without_counters(state)
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    unequal = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys())
        if expected[key].shape != state[key].shape
    ]
    problems = [f"missing {key}" for key in missing] + [f"unknown {key}" for key in unknown]
    problems += unequal
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise WeightsError(
            f"{path} does not fit the network: {'; '.join(problems[:4])}{more}. It is of another "
            "network, or damaged"
        )
    refuse_non_finite(state, path)


def refuse_non_finite(state: StateDict, path: str | Path) -> None:
    """Raise a WeightsError that names the weights that hold NaN or infinity, if there are any.

    Numbers of 8 bits are refused too: torch stores them, and computes nothing with them.
    """
    for key, value in state.items():
        if value.dtype.is_floating_point and value.dtype.itemsize == 1:
            raise WeightsError(
                f"{path} holds {key} as {str(value.dtype).removeprefix('torch.')}, which is not "
                "computed with here: expected float32, float16 or bfloat16. Whoever wrote it can "
                "save value.float() of each"
            )
    # the sum of finite values is finite, unless it overflows, and takes a fifth of the time
    doubtful = [key for key, value in state.items() if not value.sum().isfinite()]
    bad = [key for key in doubtful if not state[key].isfinite().all()]
    if bad:
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        raise WeightsError(
            f"{path} holds values that are not finite (NaN or infinity) in {', '.join(bad[:4])}"
            f"{more}: the training that wrote it diverged, or the file is damaged. Take another one"
        )


def style_of(source: Source) -> str | None:
    """Return the weights' style; a state dict alone tells by its preprocessing, or not at all."""
    if "style" in source.network or "preprocess.std" not in source.state:
        return source.network.get("style")
    is_divided = source.state["preprocess.std"].max() > 1
    return "torchvision" if is_divided else "caffe"


def _with_initial(state: StateDict, net: DeepLabV2, names: Iterable[str]) -> StateDict:
    """Return `state`, with the network's initial values of those names that it lacks."""
    initial = net.state_dict()
    return {name: initial[name] for name in names if name in initial} | state


def _network(source: Source, path: str | Path) -> DeepLabV2:
    """Build a network by a file's settings, without its weights; of one class without a head."""
    branches = len(source.network.get("atrous_rates", ()))
    if branches > max(sum(key.startswith("head.") for key in source.state), 16):
        raise WeightsError(
            f"{path}: its atrous_rates are {branches:,}, but its head has not so many weights. "
            f"{DAMAGED}"
        )
    try:
        return DeepLabV2(source.num_classes or 1, **source.network)
    except ClassPathError as error:
        raise WeightsError(f"{path}: {error}") from error
    except ValueError as error:
        raise WeightsError(
            f"{path}: its settings describe no network: {error}. {DAMAGED}"
        ) from error


def _no_head(source: Source, path: str | Path) -> WeightsError:
    """Return the error for a file without a trained head; it says what the file is good for."""
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


def _without_counters(state: StateDict) -> StateDict:
    """Leave out counters of batches: frozen normalization has none, and none is needed."""
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
