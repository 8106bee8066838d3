"""torchvision's ResNet-18…152 and VGG-16, trained on ImageNet: backbones without a head."""

from collections.abc import Iterable

import torch

from deeplab_lit.network.deeplab import STATISTICS
from deeplab_lit.network.weights import TORCHVISION
from deeplab_lit.network.weights.formats.source import (
    CLASSIFIER_OF_IMAGENET,
    COUNTER,
    Skip,
    Source,
    StateDict,
    renamed,
)
from deeplab_lit.network.weights.read import WeightsError

CAFFES = "vgg16-00b39a1b"  # of jcjohnson/pytorch-vgg, also with its layers renamed
TAKE = "take torchvision's vgg16-397923af.pth, or the authors' vgg16_20M.caffemodel"
FC6_AND_FC7 = {
    "classifier.0.weight": (4096, 512 * 7 * 7),
    "classifier.0.bias": (4096,),
    "classifier.3.weight": (4096, 4096),
    "classifier.3.bias": (4096,),
}
# blocks in each stage, and whether they have three convolutions
RESNETS = {
    (2, 2, 2, 2, False): "resnet18",
    (3, 4, 6, 3, False): "resnet34",
    (3, 4, 6, 3, True): "resnet50",
    (3, 4, 23, 3, True): "resnet101",
    (3, 8, 36, 3, True): "resnet152",
}


def is_torchvision(keys: Iterable[str]) -> bool:
    """Tell whether these are the names of such a classifier, its last layer included.

    Without it, the file may as well hold Caffe's values, as many do.
    """
    keys = set(keys)
    resnet = {"layer1.0.conv1.weight", "fc.weight"} <= keys
    return resnet or ("features.0.weight" in keys and any(k.startswith("classifier") for k in keys))


def refuse_caffes_by_name(name: str) -> None:
    """Raise a WeightsError for the file whose names are torchvision's and whose values Caffe's."""
    if CAFFES in name:
        raise WeightsError(
            f"it holds Caffe's VGG-16 (BGR, mean only) in torchvision's names: {TAKE}"
        )


def from_torchvision(state: StateDict) -> Source:
    """Convert its names; VGG-16's fc6 and fc7 become one branch of a head without classifier.

    Raises:
        WeightsError: it is another network, has unknown names, or values known to be Caffe's.
    """
    _refuse_caffes_vgg(state)
    source = renamed(TORCHVISION, state, _rename)
    mean, std = STATISTICS["torchvision"]
    source.state["preprocess.mean"] = torch.tensor(mean).view(1, 3, 1, 1)
    source.state["preprocess.std"] = torch.tensor(std).view(1, 3, 1, 1)
    source.network = {"backbone": _backbone(state), "style": "torchvision", "norm": "frozen"}
    _decimate(source, state)
    return source


def _refuse_caffes_vgg(state: StateDict) -> None:
    """Refuse Caffe's VGG-16 in torchvision's names, by marks of the files that are around."""
    if "features.0.weight" not in state:
        return
    if "classifier.1.weight" in state:
        raise WeightsError(
            "its classifier is laid out (classifier.1, 4, 6) as in Caffe's VGG-16 of "
            f"jcjohnson/pytorch-vgg, which takes BGR minus a mean: {TAKE}"
        )
    if not all(v.isfinite().all() for k, v in state.items() if k.startswith("classifier.")):
        raise WeightsError(
            "its classifier holds no numbers, as in torchvision's vgg16_features-amdegroot, whose "
            f"features are Caffe's (mean only, no std): {TAKE}"
        )


def _rename(key: str) -> str | Skip | None:
    if key.endswith(".num_batches_tracked"):
        return Skip(COUNTER)
    if key.startswith(("fc.", "classifier.")):
        return Skip(CLASSIFIER_OF_IMAGENET)
    first = key.partition(".")[0]
    stem = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "features")
    return f"backbone.{key}" if first in stem else None


def _backbone(state: StateDict) -> str:
    """Return which backbone it is, by its number of blocks."""
    if "features.0.weight" in state:
        return "vgg16"
    blocks = {tuple(key.split(".")[:2]) for key in state if key.startswith("layer")}
    one, two, three, four = (sum(s == f"layer{i}" for s, _ in blocks) for i in (1, 2, 3, 4))
    name = RESNETS.get((one, two, three, four, "layer1.0.conv3.weight" in state))
    if name is None:
        stages = [one, two, three, four]
        raise WeightsError(f"a ResNet with {stages} blocks is none of torchvision's 18 to 152")
    return name


def _decimate(source: Source, state: StateDict) -> None:
    """Take 3×3 of fc6's 7×7 and 1,024 of its 4,096 filters, as DeepLabv1, Sec. 2.2."""
    if any(key not in state or state[key].shape != shape for key, shape in FC6_AND_FC7.items()):
        return
    fc6 = state["classifier.0.weight"].view(4096, 512, 7, 7)[::4, :, ::3, ::3]
    fc7 = state["classifier.3.weight"].view(4096, 4096, 1, 1)[::4, ::4]
    values = (fc6, state["classifier.0.bias"][::4], fc7, state["classifier.3.bias"][::4])
    for key, value in zip(FC6_AND_FC7, values, strict=True):
        layer, kind = {"0": "fc6", "3": "fc7"}[key.split(".")[1]], key.rpartition(".")[2]
        source.copied[key] = our_name = f"head.branches.0.{layer}.{kind}"
        source.state[our_name] = value
        del source.skipped[key]
