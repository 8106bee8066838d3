"""Weights: what training starts from, and how a trained network is loaded.

Files are read with `weights_only=True`: nothing in them is executed.
"""

import inspect
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from deeplab_lit.network.backbone import VGG16, Backbone
from deeplab_lit.network.deeplab import DeepLabV2

StateDict = dict[str, Tensor]


class WeightsError(ValueError):
    """A weight file cannot be had, read, or used; says which, why and what to do."""


def load(path: str | Path) -> DeepLabV2:
    """The network of a checkpoint that `fit` wrote, in eval mode.

    Args:
        path: the file.

    Returns:
        The network; its attribute `classes` holds the names and RGB colours of the classes.

    Raises:
        WeightsError: no such file, or not such a checkpoint.
    """
    checkpoint = read_checkpoint(path)
    hparams = checkpoint["hyper_parameters"]
    known = inspect.signature(DeepLabV2).parameters
    net = DeepLabV2(len(hparams["classes"]), **{k: v for k, v in hparams.items() if k in known})
    _load_strictly(net, _strip(checkpoint["state_dict"], "net."), path)
    net.classes = {name: tuple(colour) for name, colour in hparams["classes"].items()}
    return net.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint that `fit` wrote.

    Raises:
        WeightsError: no such file, or not such a checkpoint.
    """
    content = _read(path)
    hparams, state = content.get("hyper_parameters"), content.get("state_dict")
    if not (
        isinstance(hparams, dict)
        and isinstance(state, dict)
        and "classes" in hparams
        and "global_step" in content
    ):
        raise WeightsError(
            f"{path} is not a checkpoint of deeplab_lit (no hyper_parameters.classes in it)"
        )
    return content


def initialise(net: DeepLabV2, weights: str) -> None:
    """Load what training starts from.

    Args:
        net: changed in place.
        weights: "none"; "imagenet", torchvision's weights for the backbone (and VGG-16's fc6 and
            fc7); or a file: a checkpoint of `fit`, a DeepLabV2 state dict, or a torchvision ResNet
            or VGG-16. A file whose head does not fit, for another number of classes say, gives its
            backbone only, and a warning says so.

    Raises:
        WeightsError: the weights cannot be had or do not fit the network.
    """
    if weights == "none":
        if not isinstance(net.backbone, VGG16) and net.norm == "frozen":
            raise WeightsError(
                "weights none with norm frozen would train a ResNet without any normalisation: set "
                "--model.norm batch, or start from weights"
            )
        return
    if weights == "imagenet":
        _check_torchvision_style(net, weights)
        _load_torchvision(net, _download(net.backbone_name), weights)
        return
    content = _read(weights)
    state = _strip(content.get("state_dict", content), "net.")
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{weights} holds no state dict (names and tensors)")
    std = state.get("preprocess.std", net.preprocess.std)
    if not torch.equal(std, net.preprocess.std):
        style = "caffe" if net.style == "torchvision" else "torchvision"
        raise WeightsError(f"{weights} was trained with style {style}: set --model.style {style}")
    if "conv1.weight" in state or "features.0.weight" in state:
        _load_torchvision(net, state, weights)
    elif any(key.startswith("backbone.") for key in state):
        _load_deeplab(net, state, weights)
    else:
        raise WeightsError(
            f"{weights}: not recognised as a deeplab_lit checkpoint or a torchvision ResNet or "
            f"VGG-16 (its keys begin with {', '.join(map(repr, list(state)[:3]))})"
        )


def _load_deeplab(net: DeepLabV2, state: StateDict, source: str) -> None:
    own = net.state_dict()
    heads = [
        {key: value.shape for key, value in weights.items() if key.startswith("head.")}
        for weights in (own, state)
    ]
    if heads[0] == heads[1]:
        _load_strictly(net, state, source)
        return
    warnings.warn(
        f"{source}: its head does not fit; only the backbone is loaded from it", stacklevel=2
    )
    _load_strictly(net.backbone, _strip(state, "backbone."), source)


def _load_torchvision(net: DeepLabV2, state: StateDict, source: str) -> None:
    """A classifier's weights into the backbone, and VGG-16's fc6 and fc7 into every branch."""
    _check_torchvision_style(net, source)
    kept = {k: v for k, v in state.items() if not k.startswith(("fc.", "classifier."))}
    _load_strictly(net.backbone, kept, source)
    if not isinstance(net.backbone, VGG16) or "classifier.0.weight" not in state:
        return
    # DeepLabv1, Sec. 2.2: fc6 from 7×7 to 3×3 by decimation, 1,024 of the 4,096 filters
    fc6 = state["classifier.0.weight"].view(4096, 512, 7, 7)[::4, :, ::3, ::3]
    fc7 = state["classifier.3.weight"].view(4096, 4096, 1, 1)[::4, ::4]
    for branch in net.head.branches:
        if hasattr(branch, "fc6"):
            branch.fc6.load_state_dict({"weight": fc6, "bias": state["classifier.0.bias"][::4]})
            branch.fc7.load_state_dict({"weight": fc7, "bias": state["classifier.3.bias"][::4]})


def _check_torchvision_style(net: DeepLabV2, source: str) -> None:
    if net.style != "torchvision":
        raise WeightsError(
            f"{source}: torchvision's weights need --model.style torchvision, not {net.style}"
        )


def _load_strictly(module: DeepLabV2 | Backbone, state: StateDict, source: str | Path) -> None:
    own, state = (  # counters of batches: a frozen norm has none, and none is needed
        {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
        for weights in (module.state_dict(), state)
    )
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    unequal = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if own[key].shape != state[key].shape
    ]
    problems = [f"missing {key}" for key in missing] + [f"unknown {key}" for key in extra] + unequal
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise WeightsError(f"{source} does not fit the network: {'; '.join(problems[:4])}{more}")
    module.load_state_dict(state, strict=False)


def _download(backbone: str) -> StateDict:
    try:
        entry = get_model_weights(backbone).IMAGENET1K_V1
    except ValueError as error:
        raise WeightsError(
            f"there are no ImageNet weights of {backbone}: set --model.weights none "
            "--model.norm batch, or --model.weights FILE"
        ) from error
    file = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rsplit("/", 1)[-1]
    if file.is_file():
        return _read(file)
    try:
        return entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"cannot download the ImageNet weights of {backbone} ({error}). Fetch {entry.url} on "
            f"another machine and put it at {file}, or start from --model.weights FILE, or from "
            "random weights with --model.weights none --model.norm batch."
        ) from error


def _read(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise WeightsError(f"{path} is a web page, not weights: the download went wrong")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise WeightsError(
            f"{path}: not a weight file, or one that holds more than weights, which is not "
            f"executed ({_first_line(error)})"
        ) from error
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise WeightsError(
            f"{path}: not a PyTorch weight file, or a truncated one ({_first_line(error)})"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected names and tensors")
    return content


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _strip(state: StateDict, prefix: str) -> StateDict:
    """The entries below `prefix`, without it; all of them where none has it."""
    below = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    return below or state
