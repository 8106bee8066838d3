"""The authors' Caffe layers: ResNet-101, and VGG-16 with one branch (LargeFOV) or four (ASPP-L).

Released train.prototxt: a convolution's blobs are weight and bias; BatchNorm's are mean and
variance, both times a factor, and that factor; Scale's are γ and β. The copies of all layers for
the scales 0.75 and 0.5 share their weights and are called …_res075 and …_res05.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from deeplab_lit.network.weights import CAFFE
from deeplab_lit.network.weights.formats.source import (
    CLASSIFIER,
    Source,
    StateDict,
    refuse_unknown,
    set_caffe_style,
    set_head,
)
from deeplab_lit.network.weights.read import WeightsError

COPY = re.compile(r".*_res(075|05)(_.*)?")
BLOCK = re.compile(r"(res|bn|scale)([2-5])([a-z]\d*)_branch(1|2a|2b|2c)")
STEM = {"conv1": "res", "bn_conv1": "bn", "scale_conv1": "scale"}
RESNET_BRANCH = re.compile(r"fc1_.+_c([0-3])")
PRETRAINING = re.compile(r"fc1_[^_]+|fc1000")
VGG_CONV = re.compile(r"conv([1-5])_([1-3])")
VGG_HEAD = re.compile(r"(fc6|fc7|fc8)(?:_[a-zA-Z][\w-]*?)?(?:_([1-4]))?")
VGG_FEATURES = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
BLOBS = {
    "conv": ("weight", "bias"),
    "bn": ("running_mean", "running_var", "factor"),
    "scale": ("weight", "bias"),
}


def is_caffe(keys: Iterable[str]) -> bool:
    """Tell whether these are "<layer>/<blob>" names of one of the networks."""
    keys = set(keys)
    return "res2a_branch1/0" in keys or "conv1_1/0" in keys


def from_caffe(state: StateDict) -> Source:
    """Convert Caffe's blobs to our names.

    Args:
        state: "<layer>/<index of the blob>" → tensor, as network/weights/caffe.py reads them.

    Raises:
        WeightsError: there are unknown layers, or normalization without its factor.
    """
    source = Source(CAFFE, {})
    unknown, copies = [], False
    for key, value in state.items():
        layer, _, index = key.partition("/")
        name = _name(layer)
        if COPY.fullmatch(layer):
            source.skipped[key] = "a copy for another scale, which shares its weights"
            copies = True
        elif _is_pretraining(layer, state):
            source.skipped[key] = CLASSIFIER
        elif name is None or int(index) >= len(BLOBS[name[1]]):
            unknown.append(key)
        else:
            our_name = f"{name[0]}.{BLOBS[name[1]][int(index)]}"
            is_kernel = name[1] == "conv" and index == "0"
            source.state[our_name] = value if is_kernel else value.flatten()
            source.copied[key] = our_name
    refuse_unknown(CAFFE, unknown)
    _refuse_parts_of_norms(source.copied)
    _divide_by_factor(source.state)
    vgg = "backbone.features.0.weight" in source.state
    set_caffe_style(source)
    scales = (1.0, 0.75, 0.5) if copies else (1.0,)
    backbone = "vgg16" if vgg else "resnet101"
    source.network |= {"backbone": backbone, "align_corners": True, "scales": scales}
    if vgg and "head.branches.1.fc6.weight" not in source.state:
        set_head(source, "largefov", (12,), "head.branches.0.fc8.bias")
    else:
        bias = "head.branches.0.fc8.bias" if vgg else "head.branches.0.bias"
        set_head(source, "aspp", (6, 12, 18, 24), bias)
    return source


def _name(layer: str) -> tuple[str, str] | None:
    """Return our module of a layer, and which kind of blobs it has; None: an unknown layer."""
    if layer in STEM:
        kind = STEM[layer]
        return ("backbone.conv1", "conv") if kind == "res" else ("backbone.bn1", kind)
    if match := BLOCK.fullmatch(layer):
        kind, stage, block, branch = match.groups()
        number = int(block[1:]) if len(block) > 1 else ord(block) - ord("a")
        place = f"backbone.layer{int(stage) - 1}.{number}"
        part = "conv" if kind == "res" else "bn"
        if branch == "1":
            place += f".downsample.{0 if kind == 'res' else 1}"
        else:
            place += f".{part}{'abc'.index(branch[1]) + 1}"
        return place, "conv" if kind == "res" else kind
    if match := RESNET_BRANCH.fullmatch(layer):
        return f"head.branches.{match[1]}", "conv"
    if match := VGG_CONV.fullmatch(layer):
        return f"backbone.features.{VGG_FEATURES[int(match[1])][int(match[2]) - 1]}", "conv"
    if match := VGG_HEAD.fullmatch(layer):
        return f"head.branches.{int(match[2] or 1) - 1}.{match[1]}", "conv"
    return None


def _is_pretraining(layer: str, state: StateDict) -> bool:
    """Tell whether a layer is the pretraining's: MS-COCO's is 1×1, ImageNet's is called fc1000."""
    weight = state.get(f"{layer}/0", torch.empty(0))
    return PRETRAINING.fullmatch(layer) is not None and weight.shape[2:].numel() == 1


def _refuse_parts_of_norms(keys: Iterable[str]) -> None:
    """Refuse statistics without their factor: they would be taken for others, 1000 times larger."""
    norms: dict[str, list[str]] = {}
    for key in keys:
        layer, _, index = key.partition("/")
        name = _name(layer)
        if name is not None and name[1] == "bn":
            norms.setdefault(layer, []).append(index)
    for layer, indices in norms.items():
        if missing := [f"{layer}/{index}" for index in "012" if index not in indices]:
            raise WeightsError(
                f"{', '.join(missing)} is missing: the mean, the variance and the factor that both "
                f"are stored times mean nothing alone. Leave out all of {layer} (--ignore {layer}) "
                "or nothing; if nothing was left out, fetch the file again"
            )


def _divide_by_factor(state: StateDict) -> None:
    """Divide BatchNorm's statistics by the factor they are stored times; a factor of 0 gives 0."""
    for key in [key for key in state if key.endswith(".factor")]:
        norm, factor = key.removesuffix(".factor"), state.pop(key)
        for name in ("running_mean", "running_var"):
            stored = f"{norm}.{name}"
            state[stored] = _divided(state[stored], factor, norm)


def _divided(value: Tensor, factor: Tensor, norm: str) -> Tensor:
    if factor.numel() != 1:
        raise WeightsError(f"the factor of {norm} has {factor.numel()} values, expected 1")
    return value * (0 if factor.item() == 0 else 1 / factor)
