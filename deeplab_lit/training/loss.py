"""The authors' loss: cross-entropy on the network's grids, summed over scales and their maximum.

DeepLabv2, Sec. 4.1: "sum of cross-entropy terms for each spatial position in the CNN output map
(subsampled by 8 compared to the original image). All positions and labels are equally weighted in
the overall loss function (except for unlabeled pixels which are ignored)"; released train.prototxt:
four SoftmaxWithLoss layers of weight 1, each a mean over the pixels that are not void.

Letters: B batch · C classes · H×W image · h×w feature grid.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from deeplab_lit.errors import UserError
from deeplab_lit.network.multiscale import ScaleLogits
from deeplab_lit.types import VOID

ROWS = 128  # of an image that are scored at once
MOST = 103.28  # −log of the smallest float32: the loss where a probability was rounded to 0


def deeplab_loss(
    logits: ScaleLogits, mask: Tensor, loss: nn.Module | None = None, *, align_corners: bool
) -> Tensor:
    """Return the sum of one loss for each scale and, with several scales, one for the maximum.

    Args:
        logits: of the network, at each scale and fused.
        mask: (B,H,W) uint8, class indices and 255 for void.
        loss: of one scale: from logits (B,C,h,w) float32 and targets (B,h,w) int64, class indices
            and 255, to a scalar. It is not called where all targets are void. None: the authors'
            `cross_entropy`.
        align_corners: the convention by which grids and image match.

    Returns:
        A scalar, float32; 0 with zero gradients where everything is void.
    """
    maps = list(logits.at_scales)
    if len(maps) > 1:
        maps.append(logits.fused)
    terms = []
    for scale in maps:
        target = subsample(mask, scale.shape[-2:], align_corners=align_corners)
        terms.append(cross_entropy(scale, target) if loss is None else _term(loss, scale, target))
    return torch.stack(terms).sum()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy over the pixels that are not void; 0 where all are.

    Args:
        logits: (B,C,h,w).
        target: (B,h,w), class indices and 255.
    """
    target = target.long()
    total = F.cross_entropy(logits.float(), target, ignore_index=VOID, reduction="sum")
    return total / (target != VOID).sum().clamp(min=1)


def _term(loss: nn.Module, logits: Tensor, target: Tensor) -> Tensor:
    """Return `loss` of one scale; 0 with zero gradients where no pixel is labeled."""
    if bool((target == VOID).all()):
        return logits.float().sum() * 0
    value = loss(logits.float(), target.long())
    if not isinstance(value, Tensor) or value.ndim:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise UserError(
            f"the loss {type(loss).__name__} must return a scalar tensor, got {found:.80}: take "
            "the mean over the labeled pixels"
        )
    return value


def subsample(mask: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Return the mask's value at the center of every cell of a grid: (B,H,W) → (B,h,w).

    With aligned corners and (H−1) a multiple of (h−1) this is every 8th (16th, …) pixel, which is
    what Caffe's Interp makes of the label. No two labels are ever mixed.
    """
    rows, columns = (
        _centers(n, cells, align_corners, mask.device)
        for n, cells in zip(mask.shape[-2:], size, strict=True)
    )
    return mask[:, rows][:, :, columns]


def _centers(pixels: int, cells: int, align_corners: bool, device: torch.device) -> Tensor:
    """Return the index of the pixel nearest to the center of each cell."""
    cell = torch.arange(cells, dtype=torch.float32, device=device)
    if align_corners:
        return (cell * (pixels - 1) / max(cells - 1, 1)).round().long()
    return ((cell + 0.5) * pixels / cells).long()


class PixelLoss(Metric):
    """val/loss: the mean cross-entropy of all labeled pixels of the validation set.

    Of each pixel −log of the probability of its true class (natural logarithm), from the logits
    that are scored: at the image's own size, fused over scales, windows and views. The mean is over
    the pixels of all images together, as the scores are; void does not count. The loss of training
    is another one: on the feature grid, and summed over every scale and their maximum, so that with
    the paper's three scales it is about four times as high.

    Every image's share is the same in any batch, and they are added without rounding, so the value
    depends neither on the batch size nor on the number of processes.
    """

    full_state_update = False
    sums: list[Tensor]
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", [], dist_reduce_fx="cat")
        self.add_state("pixels", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, mask: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (B,C,H,W).
            mask: (B,H,W), class indices and 255 for void.
        """
        rows = zip(logits.split(ROWS, dim=2), mask.split(ROWS, dim=1), strict=True)
        sums = [self._sums(*some) for some in rows]  # no copy of all logits at once
        self.sums.append(torch.stack(sums, dim=1).flatten())
        self.pixels += (mask != VOID).sum()

    def _sums(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the summed loss of each image, (B,) float32."""
        images = zip(logits.split(1), mask.long().split(1), strict=True)
        losses = [
            F.cross_entropy(one.float(), target, ignore_index=VOID, reduction="none")
            for one, target in images
        ]
        return torch.stack([x.nan_to_num(nan=torch.nan, posinf=MOST).sum() for x in losses])

    def compute(self) -> float:
        """Return the mean over all processes; NaN where no pixel is labeled."""
        if not self.pixels:
            return math.nan
        return math.fsum(dim_zero_cat(self.sums).tolist()) / self.pixels.item()
