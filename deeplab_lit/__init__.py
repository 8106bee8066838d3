"""DeepLabv2 (Chen et al., arXiv:1606.00915) for research, on PyTorch Lightning.

How data flows. B batch · C classes · D features · H×W image · h×w feature cells · S scales:

| step        | where                 | from → to                                                |
|-------------|-----------------------|----------------------------------------------------------|
| files       | data/                 | ids of a split → image (H,W,3) uint8, mask (H,W) uint8   |
| transforms  | data/transforms.py    | scale → pad → crop → mirror, still uint8                 |
| batch       | data/dataset.py       | image (B,3,H,W) uint8, mask (B,H,W) uint8, id            |
| preprocess  | network/preprocess.py | (x − mean) / std                                         |
| backbone    | network/backbone.py   | (B,3,H,W) → (B,D,h,w)                                    |
| head        | network/head.py       | → logits (B,C,h,w)                                       |
| multi-scale | network/multiscale.py | S logits and their element-wise maximum                  |
| loss        | training/loss.py      | logits, mask → scalar                                    |
| optimizer   | training/optimizer.py | backbone ×1, head ×10, head biases ×20; poly, or step    |
| inference   | network/inference.py  | image → logits (B,C,H,W): scales, windows, several views |
| metric      | scoring/metric.py    | one int64 confusion matrix (C,C) a run                   |
| crf         | crf/dense_crf.py      | image uint8, probabilities (C,H,W) → probabilities       |
| record      | runs/record.py    | run folder: config, checkpoints, metrics, results        |
"""

from pathlib import Path

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.load import load as _load_network

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: str | Path) -> DeepLabV2:
    """The network of a trained weight file, in eval mode.

    Args:
        path: a checkpoint of `fit` or `convert`; or a file of the authors, of kazuto1011, isht7 or
            AdaptSegNet, recognized from the names in it, which takes RGB 0…255 and gives its own
            network's logits.

    Returns:
        The network; its attribute `classes` holds the names and RGB colors of the classes: where
        the file has none, VOC's for 21 classes, Cityscapes' for 19, COCO-Stuff's for 182, else
        class_0 and so on.

    Raises:
        WeightsError: no such file, or not such weights.
    """
    net = _load_network(path)
    if not net.classes:
        from deeplab_lit.data.class_names import class_names

        net.classes = class_names(net.num_classes)
    return net
