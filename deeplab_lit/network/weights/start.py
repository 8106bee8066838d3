"""Initialize a network: random weights, ImageNet's, or those of a file, as far as they fit.

A network knows its classes by index only: do two lists name the same ones in the same order?
Spelling does not count: capitals, and spaces, dashes or underscores between words.
"""

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from urllib.error import URLError

import torch
from torchvision.models import get_model_weights

from deeplab_lit.network.backbone import ResNet
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights import TORCHVISION
from deeplab_lit.network.weights.fetch import weight_file
from deeplab_lit.network.weights.formats import read_source, translate
from deeplab_lit.network.weights.formats.source import Source, below, fc6_and_fc7
from deeplab_lit.network.weights.load import load_fitting, style_of
from deeplab_lit.network.weights.read import MissingWeights, WeightsError, read_weight_file

MOST = 5  # differences in a sentence
GENERIC = re.compile(r"class_\d+")  # what a network is given that does not know its classes


def initialize(net: DeepLabV2, weights: str, classes: Iterable[str] = ()) -> Source | None:
    """Load what training starts from.

    Args:
        net: changed in place.
        weights: "none"; "imagenet", torchvision's weights for the backbone (and VGG-16's fc6 and
            fc7); a name of published weights; or a file of any format of
            network/weights/formats. Of a file whose head does not fit, for another number of
            classes say, only the backbone is loaded (and VGG-16's fc6 and fc7), and a warning says
            so; likewise of one with as many classes, of which some stand at other indices.
        classes: names of the network's, by index; empty: not known.

    Returns:
        What was read; None for "none".

    Raises:
        WeightsError: the weights cannot be had, do not fit the network, or have the same classes
            in another order.
    """
    if weights == "none":
        if isinstance(net.backbone, ResNet) and net.norm == "frozen":
            raise WeightsError(
                "weights none with norm frozen would train a ResNet without any normalization: set "
                "--model.norm batch, or start from weights"
            )
        return None
    if weights == "imagenet":
        _check_style(net, "torchvision", "torchvision's weights")
        source = imagenet_source(net.backbone_name)
    else:
        try:
            source = read_source(weight_file(weights))
        except MissingWeights as error:
            words = '(or "imagenet", or "none")'
            raise MissingWeights(f"--model.weights {error} {words}") from error
    _check_style(net, style_of(source) or net.style, weights)
    fitting = _with_head_for(source, list(classes), weights)
    load_fitting(net, fitting, weights)
    settings = {
        "head": net.head_name,
        "atrous_rates": net.atrous_rates,
        "output_stride": net.output_stride,
        "align_corners": net.align_corners,
    }
    for name, value in settings.items():
        trained_with = fitting.network.get(name, value)
        trained_with = tuple(trained_with) if isinstance(trained_with, list) else trained_with
        if trained_with != value and fitting.num_classes == net.num_classes:
            warnings.warn(
                f"{weights} was trained with {name} {trained_with!s:.100}, this network has "
                f"{value!s:.100} (--model.{name})",
                stacklevel=2,
            )
    return source


def imagenet_source(backbone: str) -> Source:
    """Return the first ImageNet weights that torchvision published for a backbone.

    They are read from torch's folder for downloads, or downloaded to it.

    Raises:
        WeightsError: there are none, or they cannot be downloaded.
    """
    file, url = imagenet_file(backbone)
    if file.is_file():
        return translate(read_weight_file(file), TORCHVISION)
    try:
        entry = get_model_weights(backbone).IMAGENET1K_V1
        state = entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"cannot download the ImageNet weights of {backbone} ({error}). Fetch {url} on "
            f"another machine and put it at {file}, or start from --model.weights FILE, or from "
            "random weights with --model.weights none --model.norm batch (from few images a small "
            "network learns more: --model.backbone resnet10_quarter, or configs/camvid.yaml)."
        ) from error
    return translate(state, TORCHVISION)


def imagenet_file(backbone: str) -> tuple[Path, str]:
    """Return where a backbone's ImageNet weights lie once they are downloaded, and their URL.

    Raises:
        WeightsError: there are none for this backbone.
    """
    try:
        url = get_model_weights(backbone).IMAGENET1K_V1.url
    except ValueError as error:
        raise WeightsError(
            f"there are no ImageNet weights of {backbone}: set --model.weights none "
            "--model.norm batch, or --model.weights FILE"
        ) from error
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1], url


def _with_head_for(source: Source, classes: list[str], path: str) -> Source:
    """Return the source, without its classifier where that is known to be for other classes.

    Args:
        source: the file, read.
        classes: names of the data's, by index; empty: not known.
        path: named in errors and warnings.

    Raises:
        WeightsError: it has the same classes in another order.
    """
    in_file = list(source.classes or ())
    head = below("head.", source.state)
    outputs = {len(value) for value in head.values() if value.ndim == 4}
    if len(classes) in outputs and (not in_file or are_generic(in_file)):
        warnings.warn(
            f"{path} does not name its classes: its head is kept, and its {len(classes)} classes "
            "are taken for those of the data, in their order",
            stacklevel=3,
        )
    if not classes or len(in_file) != len(classes) or are_generic(in_file):
        return source
    if not differing(in_file, classes):
        return source
    changes = f"(index: weights → data; {differences(in_file, classes)})"
    if is_reordered(in_file, classes):
        raise WeightsError(
            f"{path} has the same classes in another order {changes}: its head would learn on "
            "under wrong names. Bring the names, and the values in the masks, into the file's order"
        )
    if not moved(in_file, classes):
        warnings.warn(
            f"{path} names classes differently {changes}; its head is kept, class by class",
            stacklevel=3,
        )
        return source
    warnings.warn(
        f"{path} is of other classes {changes}: its head's classifier is left out and starts anew",
        stacklevel=3,
    )
    others = {name: value for name, value in source.state.items() if name not in head}
    return replace(source, state=others | fc6_and_fc7(head), num_classes=None)


def _check_style(net: DeepLabV2, style: str, weights: str) -> None:
    """Refuse weights of a style that the network does not have."""
    if net.style != style:
        raise WeightsError(f"{weights} needs --model.style {style}, not {net.style}")


def moved(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether a class stands in both lists, at different indices."""
    places = [{name: i for i, name in enumerate(names)} for names in _comparable(first, second)]
    return any(places[1].get(name, i) != i for name, i in places[0].items())


def is_reordered(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether both lists have the same classes, in another order."""
    first, second = _comparable(first, second)
    return first != second and sorted(first) == sorted(second)


def differing(first: Sequence[str], second: Sequence[str]) -> list[int]:
    """Return the indices at which two lists differ; the longer one's last ones among them."""
    pairs = enumerate(zip_longest(*_comparable(first, second)))
    return [i for i, (one, other) in pairs if one != other]


def differences(first: Sequence[str], second: Sequence[str]) -> str:
    """Say where two lists differ: "3: cat → dog, 4: cow → (none)", the first five."""
    indices = differing(first, second)
    pairs = [[x[i] if i < len(x) else "(none)" for x in (first, second)] for i in indices[:MOST]]
    more = f", and {len(indices) - MOST} more" if len(indices) > MOST else ""
    texts = [f"{i}: {one} → {other}" for i, (one, other) in zip(indices, pairs, strict=False)]
    return ", ".join(texts) + more


def are_generic(names: Sequence[str]) -> bool:
    """Return whether these names only number the classes, as class_0 does."""
    return all(map(GENERIC.fullmatch, names))


def check_order(in_file: Sequence[str], names: Sequence[str], path: str, owner: str) -> None:
    """Refuse names under which a network's scores or masks would be other classes'.

    Args:
        in_file: names of the network's classes, by index.
        names: that they are about to be given, by index.
        path: of the network's file.
        owner: of the latter, like "Folder's".

    Raises:
        WeightsError: a class stands at another index.
    """
    if moved(in_file, names):
        raise WeightsError(
            f"{path} has its classes in another order than {owner} (index: checkpoint → data; "
            f"{differences(in_file, names)}), so they would be taken for each other. Use the data "
            "that it was trained on; or bring the names, and the values in the masks, into the "
            "checkpoint's order"
        )


def _comparable(first: Sequence[str], second: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return both lists without spelling, unless one would then name a class twice."""
    plain = [[re.sub(r"[\s_-]+", " ", name).casefold() for name in x] for x in (first, second)]
    if any(len(set(names)) < len(names) for names in plain):
        return list(first), list(second)
    return plain[0], plain[1]
