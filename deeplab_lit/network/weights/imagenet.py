"""torchvision's ImageNet weights: found in torch's folder for downloads, or downloaded."""

from pathlib import Path
from urllib.error import URLError

import torch
from torchvision.models import get_model_weights

from deeplab_lit.network.weights.formats import translate
from deeplab_lit.network.weights.formats.source import Source
from deeplab_lit.network.weights.formats.torchvision import NAME
from deeplab_lit.network.weights.read import WeightsError, read_weight_file


def imagenet_source(backbone: str) -> Source:
    """The first ImageNet weights that torchvision published for a backbone.

    Raises:
        WeightsError: there are none, or they cannot be downloaded.
    """
    file, url = imagenet_file(backbone)
    if file.is_file():
        return translate(read_weight_file(file), NAME)
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
    return translate(state, NAME)


def imagenet_file(backbone: str) -> tuple[Path, str]:
    """Where the weights lie once they are downloaded, and from where.

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
