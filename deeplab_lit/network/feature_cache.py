"""Keep in a folder what frozen first layers make of an image, so that it is computed once.

A training whose first layers do not learn sends the same images through the same layers in every
epoch, and so does every other training from the same weights: an ablation of heads, say. Here these
features are computed when they are first needed, and read from then on, by any training.

A file is named after all that decides what is in it: the layers and their weights, the precision,
the kind of device, PyTorch's version, and the values of the image that comes in. What has changed
has another name, so no features of another image or network are ever read. Files are written whole,
and several processes may share the folder.

Letters: B batch · D features · H×W image · h×w feature cells.
"""

import copy
import hashlib
import io
import pickle
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from deeplab_lit.atomic import atomic_torch_save
from deeplab_lit.network.backbone import FrozenBatchNorm2d

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
DAMAGED = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError)


class FeatureCache:
    """The first layers of a backbone, each image's features read from a folder where they are.

    Args:
        folder: made when first needed; several networks may share it.
        layers: frozen and in eval mode, in forward order; their weights stay as they are now.

    Attributes:
        folder: of these layers with these weights.
        layers: as the argument.
    """

    def __init__(self, folder: str | Path, layers: Sequence[nn.Module]) -> None:
        self.layers = list(layers)
        self.folder = Path(folder).expanduser() / fingerprint(self.layers)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (B,D,h,w) of preprocessed images (B,3,H,W).

        Each image goes through the layers alone, so its features are the same in any batch.
        """
        return torch.cat([self._of_one(image) for image in images.split(1)])

    def _of_one(self, image: Tensor) -> Tensor:
        """Return the features (1,D,h,w) of one image (1,3,H,W)."""
        path = self.path(image)
        features = read_features(path)
        if features is None:
            features = image
            for layer in self.layers:
                features = layer(features)
            atomic_torch_save(features.detach().cpu(), path)
        return features.to(image.device)

    def path(self, image: Tensor) -> Path:
        """Return the file of an image (1,3,H,W), under the precision that holds at present."""
        device = image.device.type
        autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        about = f"{tuple(image.shape)} {image.dtype} {autocast} {device} {torch.__version__}"
        values = image.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        digest = hashlib.sha256(about.encode() + b"\0" + values.tobytes()).hexdigest()
        return self.folder / f"{digest[:32]}.pt"


def read_features(path: Path) -> Tensor | None:
    """Return features (1,D,h,w) on the CPU; None: there are none, or their file is damaged."""
    try:
        content = io.BytesIO(path.read_bytes())
        with zipfile.ZipFile(content) as file:
            if file.testzip() is not None:  # torch.load compares no checksum
                return None
        content.seek(0)
        return torch.load(content, weights_only=True)
    except DAMAGED:
        return None


def frozen_first(parts: Iterable[nn.Module], frozen: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the parts of a network in front of the first that learns or is random.

    Args:
        parts: in forward order.
        frozen: modules that do not learn, and are in eval mode while others train.
    """
    still = {id(module) for part in frozen for module in part.modules()}
    first = []
    for part in parts:
        if any(_changes(module) for module in part.modules() if id(module) not in still):
            break
        first.append(part)
    return first


def _changes(module: nn.Module) -> bool:
    """Return whether a module has state of its own that training may change, or draws numbers."""
    has_state = any(True for _ in module.parameters(recurse=False)) or (
        not isinstance(module, FrozenBatchNorm2d)
        and any(True for _ in module.buffers(recurse=False))
    )
    return has_state or isinstance(module, DROPOUT)


def fingerprint(layers: Sequence[nn.Module]) -> str:
    """Return a hash of layers, their settings and weights: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for layer in layers:
        digest.update(repr(layer).encode())
        for module in layer.modules():  # of yours: what they keep need not be in their repr
            digest.update(f"{type(module).__module__} {_settings(module)}".encode())
        for name, tensor in layer.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _settings(module: nn.Module) -> list[tuple[str, object]]:
    """Return a module's numbers and words, by name, without its mode."""
    plain = (bool, int, float, str, tuple)
    kept = ((name, value) for name, value in vars(module).items() if isinstance(value, plain))
    return sorted((name, value) for name, value in kept if name != "training")


def feature_shape(layers: Sequence[nn.Module], height: int, width: int) -> tuple[int, ...]:
    """Return D, h, w of the features that layers make of an image, without computing any."""
    x = torch.empty(1, 3, height, width, device="meta")
    for layer in layers:
        x = copy.deepcopy(layer).to("meta")(x)
    return tuple(x.shape[1:])
