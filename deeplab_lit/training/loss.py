"""The authors' loss: cross-entropy on the network's grids, summed over scales and their maximum.

Descendants of the method score logits at the labels' size instead: `loss_size` image.

DeepLabv2, Sec. 4.1: "sum of cross-entropy terms for each spatial position in the CNN output map
(subsampled by 8 compared to the original image). All positions and labels are equally weighted in
the overall loss function (except for unlabeled pixels which are ignored)"; released train.prototxt:
four SoftmaxWithLoss layers of weight 1, each a mean over the pixels that are not void.

Letters: B batch · C classes · H×W image · h×w feature grid.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_lit.errors import UserError
from deeplab_lit.network.multiscale import ScaleLogits, resize
from deeplab_lit.training.losses import Loss, soft_cross_entropy
from deeplab_lit.types import VOID

LossSize = Literal["grid", "image"]


def deeplab_loss(
    logits: ScaleLogits,
    mask: Tensor,
    loss: nn.Module | None = None,
    *,
    align_corners: bool,
    size: LossSize = "grid",
) -> Tensor:
    """Return the sum of one loss for each scale and, with several scales, one for the maximum.

    Args:
        logits: of the network, at each scale and fused.
        mask: (B,H,W) uint8, class indices and 255 for void.
        loss: of one scale: from logits (B,C,h,w) float32 and targets (B,h,w) int64, class indices
            and 255, to a scalar. It is not called where all targets are void. None: the authors'
            `cross_entropy`.
        align_corners: the convention by which grids and image match.
        size: "grid" brings the mask to each scale's h×w by `subsample`; "image" brings the logits
            of each scale, and the maximum, to H×W by bilinear interpolation, so that every labeled
            pixel counts. One such map (B,C,H,W) float32 a scale is kept for the backward pass.

    Returns:
        A scalar, float32; 0 with zero gradients where everything is void.
    """
    maps = _scored(logits)
    if size == "image":
        targets = [mask.long()] * len(maps)  # one, which all terms share
    else:
        targets = [subsample(mask, m.shape[-2:], align_corners=align_corners) for m in maps]
    voids = [False] * len(maps)
    if loss is not None:  # one wait for the device, whatever the number of scales
        voids = torch.stack([(target == VOID).all() for target in targets]).tolist()
    terms = []
    for scale, target, void in zip(maps, targets, voids, strict=True):
        if void:  # zero with zero gradients where no pixel is labeled
            terms.append(scale.float().sum() * 0)
            continue
        if size == "image":  # of one scale at a time: it is large
            scale = resize(scale.float(), mask.shape[-2:], align_corners=align_corners)
        terms.append(cross_entropy(scale, target) if loss is None else _term(loss, scale, target))
    return torch.stack(terms).sum()


def soft_loss(
    logits: ScaleLogits,
    target: Tensor,
    counts: Tensor,
    *,
    align_corners: bool,
    size: LossSize = "grid",
) -> Tensor:
    """Return the sum of one `soft_cross_entropy` for each scale and one for the maximum.

    Args:
        logits: of the network, at each scale and fused.
        target: (B,C,H,W), the probability of each class.
        counts: (B,H,W) bool, the pixels that count.
        align_corners: the convention by which grids and image match.
        size: as of `deeplab_loss`.
    """
    pairs = with_targets(logits, (target, counts), align_corners=align_corners, size=size)
    return torch.stack([soft_cross_entropy(scale, *targets) for scale, targets in pairs]).sum()


def with_targets(
    logits: ScaleLogits, targets: Sequence[Tensor], *, align_corners: bool, size: LossSize
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield the logits of each scale, and the maximum, with targets on the same grid.

    Args:
        logits: of the network, at each scale and fused.
        targets: each (B,…,H,W).
        align_corners: the convention by which grids and image match.
        size: as of `deeplab_loss`.
    """
    for scale in _scored(logits):
        if size == "image":
            image = targets[0].shape[-2:]
            yield resize(scale.float(), image, align_corners=align_corners), list(targets)
        else:
            grid = scale.shape[-2:]
            yield scale, [subsample(x, grid, align_corners=align_corners) for x in targets]


def _scored(logits: ScaleLogits) -> list[Tensor]:
    """Return the maps that have a loss: each scale's and, with several scales, the maximum."""
    several = len(logits.at_scales) > 1
    return [*logits.at_scales, logits.fused] if several else list(logits.at_scales)


def check_loss(loss: nn.Module | None, size: LossSize, classes: Sequence[str]) -> None:
    """Refuse a loss with parameters to train or of other classes, and an unknown size.

    Args:
        loss: None: the authors'.
        size: of `deeplab_loss`.
        classes: names of the network's.

    Raises:
        ValueError: the size; trainable parameters, which no optimizer would know; or what the loss
            itself says of the classes.
    """
    if size not in get_args(LossSize):
        raise ValueError(f"loss_size must be one of {', '.join(get_args(LossSize))}, got {size!r}")
    if loss is not None and any(p.requires_grad for p in loss.parameters()):
        raise ValueError(
            f"the loss {type(loss).__name__} has parameters to train, which are in no group of the "
            "optimizer: train it in a subclass of DeepLabModule, by configure_optimizers"
        )
    if isinstance(loss, Loss):
        loss.check_classes(classes)


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
    """Return `loss` of one scale, of which some pixel is labeled."""
    value = loss(logits.float(), target.long())
    if not isinstance(value, Tensor) or value.ndim:
        returned = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise UserError(
            f"the loss {type(loss).__name__} must return a scalar tensor, got {returned:.80}: take "
            "the mean over the labeled pixels"
        )
    return value


def subsample(mask: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Return the mask's value at the center of every cell of a grid: (B,…,H,W) → (B,…,h,w).

    With aligned corners and (H−1) a multiple of (h−1) this is every 8th (16th, …) pixel, which is
    what Caffe's Interp makes of the label. No two labels are ever mixed.
    """
    rows, columns = (
        _centers(n, cells, align_corners, mask.device)
        for n, cells in zip(mask.shape[-2:], size, strict=True)
    )
    return mask[..., rows, :][..., columns]


def _centers(pixels: int, cells: int, align_corners: bool, device: torch.device) -> Tensor:
    """Return the index of the pixel nearest to the center of each cell."""
    cell = torch.arange(cells, dtype=torch.float32, device=device)
    if align_corners:
        return (cell * (pixels - 1) / max(cells - 1, 1)).round().long()
    return ((cell + 0.5) * pixels / cells).long()
