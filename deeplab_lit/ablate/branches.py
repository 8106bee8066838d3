"""What the branches of every setting's network see, for the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deeplab_lit.ablate.table import Row, by_training
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.head import ImagePooling
from deeplab_lit.network.receptive_field import (
    effective_fields,
    middle_pixel,
    rate_of,
    share_of_real_taps,
    side_of,
    theoretical_field,
)


@dataclass(frozen=True)
class Branch:
    """What a branch sees.

    Attributes:
        name: its rate, in words.
        rate: of its 3×3 kernel; null where it has none.
        theoretical: field of view in pixels; null for image pooling, which sees everything.
        effective: side of the square around the cell that holds 90 % of the gradient, in pixels.
        field: (H,W) the gradient.
        taps: share of the 3×3 kernel's taps on real features; null where it has none.
    """

    name: str
    rate: int | None
    theoretical: int | None
    effective: int
    field: Tensor
    taps: float | None


@dataclass(frozen=True)
class Fields:
    """What all branches see.

    Attributes:
        branches: of the first seed's network of each row, under the words for all rows that share
            it.
        grids: cells (h,w) of the features of those networks, under the same words.
    """

    branches: dict[str, list[Branch]]
    grids: dict[str, tuple[int, int]]

    def rates(self) -> dict[tuple[int, int], list[int]]:
        """Of the branches on each grid, each once, in order; grids without any are left out."""
        found: dict[tuple[int, int], set[int]] = {}
        for words, own in self.branches.items():
            found.setdefault(self.grids[words], set()).update(branch.rate or 0 for branch in own)
        return {grid: sorted(rates - {0}) for grid, rates in found.items() if rates - {0}}

    def pictures(self) -> dict[str, Tensor]:
        """The field (H,W) of every branch, under its setting and, in a second line, its name."""
        return {
            f"{words}\n{branch.name}": branch.field
            for words, own in self.branches.items()
            for branch in own
        }


def fields(rows: Sequence[Row], images: Tensor) -> Fields:
    """What the branches of each row's network see.

    Args:
        rows: of the table, at least one.
        images: (B,3,H,W) RGB in 0…255, over which gradients are averaged.
    """
    branches, grids = {}, {}
    for words, row in by_training(rows).items():
        net = row.network()
        with torch.inference_mode():
            grids[words] = tuple(net.logits(images[:1], (1.0,)).fused.shape[-2:])
        seen = enumerate(effective_fields(net, images))
        branches[words] = [_branch(net, i, field, grids[words]) for i, field in seen]
    return Fields(branches, grids)


def _branch(net: DeepLabV2, number: int, field: Tensor, grid: tuple[int, int]) -> Branch:
    rate = rate_of(net, number)
    pools = isinstance(net.head.branches[number], ImagePooling)
    return Branch(
        name=f"rate {rate}" if rate else "image pooling" if pools else "1×1",
        rate=rate,
        theoretical=None if pools else theoretical_field(net, number),
        effective=side_of(field, middle_pixel(net, *field.shape)),
        field=field,
        taps=None if rate is None else share_of_real_taps(rate, *grid),
    )
