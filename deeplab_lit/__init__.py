"""DeepLabv2 (Chen et al., arXiv:1606.00915) for research, on PyTorch Lightning.

How data flows. B batch · C classes · D features · H×W image · h×w feature cells · S scales:

| step        | where                 | from → to                                                |
|-------------|-----------------------|----------------------------------------------------------|
| files       | data/                 | ids of a split → image (H,W,3) uint8, mask (H,W) uint8   |
| transforms  | data/transforms.py    | scale → pad → crop → mirror, still uint8                 |
| batch       | loading/batches.py    | image (B,3,H,W) uint8, mask (B,H,W) uint8, id            |
| preprocess  | network/deeplab.py    | (x − mean) / std                                         |
| backbone    | network/backbone.py   | (B,3,H,W) → (B,D,h,w)                                    |
| head        | network/head.py       | → logits (B,C,h,w)                                       |
| multi-scale | network/multiscale.py | S logits and their element-wise maximum                  |
| loss        | training/loss.py      | logits, mask → scalar                                    |
| optimizer   | training/optimizer.py | backbone ×1, head ×10, head biases ×20; poly, or step    |
| inference   | network/inference.py  | image → logits (B,C,H,W): scales, windows, several views |
| metric      | scoring/metric.py     | one int64 confusion matrix (C,C) a run                   |
| validation  | scoring/validation.py | each image once, with labels and refined labels          |
| crf         | crf/dense_crf.py      | image uint8, probabilities (C,H,W) → probabilities       |
| record      | runs/record.py        | run folder: config, checkpoints, metrics, results        |

What is imported from here is loaded when it is first used: `import deeplab_lit` loads not even
torch; `load`, `Segmenter` and `DenseCRF` load torch, and no Lightning.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeplab_lit.crf.dense_crf import DenseCRF
    from deeplab_lit.data.cityscapes import Cityscapes
    from deeplab_lit.data.folder import Folder
    from deeplab_lit.data.gta5 import GTA5
    from deeplab_lit.data.shapes import Shapes
    from deeplab_lit.data.synthia import Synthia
    from deeplab_lit.data.voc import VOC
    from deeplab_lit.loading.datamodule import DataModule
    from deeplab_lit.network.deeplab import DeepLabV2
    from deeplab_lit.segment.segmenter import Segmenter
    from deeplab_lit.training.module import DeepLabModule

__version__ = "0.1.0"
__all__ = [
    "GTA5",
    "VOC",
    "Cityscapes",
    "DataModule",
    "DeepLabModule",
    "DeepLabV2",
    "DenseCRF",
    "Folder",
    "Segmenter",
    "Shapes",
    "Synthia",
    "__version__",
    "load",
]
_MODULES = {
    "Cityscapes": "data.cityscapes",
    "DataModule": "loading.datamodule",
    "DeepLabModule": "training.module",
    "DeepLabV2": "network.deeplab",
    "DenseCRF": "crf.dense_crf",
    "Folder": "data.folder",
    "GTA5": "data.gta5",
    "Segmenter": "segment.segmenter",
    "Shapes": "data.shapes",
    "Synthia": "data.synthia",
    "VOC": "data.voc",
}


def __getattr__(name: str) -> Any:
    """Import a class of the public API when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the public API, for editors and notebooks."""
    return sorted({*globals(), *__all__})


def load(path: str | Path) -> "DeepLabV2":
    """Load the network of a trained weight file, in eval mode.

    Args:
        path: a checkpoint of `fit` or `convert`, or a file that `export` wrote as .safetensors; or
            a file of the authors, of kazuto1011, isht7 or AdaptSegNet, recognized from the names
            in it; or a name of published weights, like "kazuto1011/voc12", which are downloaded
            once (python -m deeplab_lit.convert --list shows all). Whatever its format, the network
            takes RGB in 0…255 and gives the logits that the source network gives.

    Returns:
        The network. Its attribute `classes` holds the names and RGB colors of the classes: where
        the file has none, VOC's for 21 classes, Cityscapes' for 19, COCO-Stuff's for 182, else
        class_0 and so on.

    Raises:
        WeightsError: there is no such file, it cannot be downloaded, or holds no such weights.
    """
    from deeplab_lit.data import class_names
    from deeplab_lit.network.weights.load import load as load_network

    net = load_network(path)
    if not net.classes:
        net.classes = class_names(net.num_classes)
    return net
