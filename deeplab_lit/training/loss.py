"""The authors' loss: cross-entropy on the network's grids, summed over scales and their maximum.

DeepLabv2, Sec. 4.1: "sum of cross-entropy terms for each spatial position in the CNN output map
(subsampled by 8 compared to the original image). All positions and labels are equally weighted in
the overall loss function (except for unlabeled pixels which are ignored)"; released train.prototxt:
four SoftmaxWithLoss layers of weight 1, each a mean over the pixels that are not void.

Letters: B batch · C classes · H×W image · h×w feature grid.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from deeplab_lit.network.multiscale import ScaleLogits

VOID = 255


def deeplab_loss(logits: ScaleLogits, mask: Tensor, *, align_corners: bool) -> Tensor:
    """Sum of one cross-entropy for each scale and, with several scales, one for the maximum.

    Args:
        logits: of the network, at each scale and fused.
        mask: (B,H,W) uint8, class indices and 255 for void.
        align_corners: the convention by which grids and image match.

    Returns:
        A scalar, float32; 0 with zero gradients where everything is void.
    """
    maps = list(logits.at_scales)
    if len(maps) > 1:
        maps.append(logits.fused)
    terms = [
        cross_entropy(x, subsample(mask, x.shape[-2:], align_corners=align_corners)) for x in maps
    ]
    return torch.stack(terms).sum()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that are not void.

    Args:
        logits: (B,C,h,w).
        target: (B,h,w), class indices and 255.
    """
    target = target.long()
    total = F.cross_entropy(logits.float(), target, ignore_index=VOID, reduction="sum")
    return total / (target != VOID).sum().clamp(min=1)


def subsample(mask: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """The mask's value at the centre of every cell of a grid: (B,H,W) → (B,*size).

    With aligned corners and (H−1) a multiple of (h−1) this is every 8th (16th, …) pixel, which is
    what Caffe's Interp makes of the label. No two labels are ever mixed.
    """
    rows, columns = (
        _centres(n, cells, align_corners, mask.device)
        for n, cells in zip(mask.shape[-2:], size, strict=True)
    )
    return mask[:, rows][:, :, columns]


def _centres(pixels: int, cells: int, align_corners: bool, device: torch.device) -> Tensor:
    """The pixel nearest to the centre of each cell."""
    cell = torch.arange(cells, dtype=torch.float32, device=device)
    if align_corners:
        return (cell * (pixels - 1) / max(cells - 1, 1)).round().long()
    return ((cell + 0.5) * pixels / cells).long()
