"""DeepLabv2 (Chen et al., arXiv:1606.00915) for research, on PyTorch Lightning.

How data flows. B batch · C classes · D features · H×W image · h×w feature cells · S scales:

| step        | where                 | from → to                                               |
|-------------|-----------------------|---------------------------------------------------------|
| files       | data/                 | ids of a split → image (H,W,3) uint8, mask (H,W) uint8  |
| transforms  | data/transforms.py    | scale → pad → crop → mirror, still uint8                |
| batch       | data/dataset.py       | image (B,3,H,W) uint8, mask (B,H,W) uint8, id           |
| preprocess  | network/preprocess.py | (image − mean) / std                                    |
| backbone    | network/backbone.py   | (B,3,H,W) → (B,D,h,w)                                   |
| head        | network/head.py       | → logits (B,C,h,w)                                      |
| multi-scale | network/multiscale.py | S logits and their element-wise maximum                 |
| loss        | training/loss.py      | logits, mask → scalar                                   |
| metric      | training/metric.py    | one int64 confusion matrix (C,C) a run                  |
| record      | training/record.py    | run folder: config, checkpoints, metrics, results       |
"""

from deeplab_lit.network.weights import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]
