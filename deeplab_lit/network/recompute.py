"""Activations computed again in the backward pass instead of stored: less memory, more time."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(part: nn.Module, x: Tensor) -> Tensor:
    """As `part(x)`, keeping nothing but x for the backward pass.

    Statistics of trained normalization count each batch once.
    """
    norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)]
    if not norms:
        return checkpoint(part, x, use_reentrant=False)
    contexts = nullcontext(), _no_statistics(norms)
    return checkpoint(part, x, use_reentrant=False, context_fn=lambda: contexts)


@contextmanager
def _no_statistics(norms: list[nn.Module]) -> Iterator[None]:
    """While activations are recomputed: the first pass has counted the batch already."""
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:  # torch stops a recomputation by an exception as soon as it has what it needs
        for norm, state in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = state
