"""The network's probabilities on disk, so that an interrupted evaluation goes on."""

import gzip
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SMALLEST = 1e-5  # the CRF counts anything below as this much (crf/dense_crf.py)


class CachedProbabilities:
    """A folder with one compressed file an image: float16, and 0 where below 1e-5.

    That rounds a probability by at most one part in 2048 (by 3e-8 where it is below 6e-5). Files
    are written whole; any number of processes may share the folder.

    Args:
        folder: made when first needed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, id: str) -> Path:
        """Where an image's file is; ids may hold slashes, and capitals that a disk ignores."""
        return self.folder / f"{id.replace('/', '_')}-{sha256(id.encode()).hexdigest()[:8]}.npy.gz"

    def __contains__(self, id: str) -> bool:
        return self.path(id).is_file()

    def write(self, id: str, probabilities: Tensor) -> None:
        """Keep probabilities (C,H,W)."""
        path = self.path(id)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = probabilities.where(probabilities >= SMALLEST, 0).half().cpu().numpy()
        temporary = path.with_suffix(".tmp")
        with gzip.open(temporary, "wb", compresslevel=1) as file:
            np.save(file, kept)
        temporary.replace(path)

    def read(self, id: str) -> Tensor:
        """Probabilities (C,H,W) float32 on the CPU; they sum to 1."""
        with gzip.open(self.path(id), "rb") as file:
            kept = torch.from_numpy(np.load(file)).float()
        return kept / kept.sum(0)

    def log_probabilities(
        self, ids: Sequence[str], images: Tensor, network: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Of a batch (B,C,H,W): read where they are kept, else computed and kept.

        Both ways they are the rounded ones, so an evaluation that goes on gives the same score.

        Args:
            ids: of the images.
            images: (B,3,H,W).
            network: images to logits of the same size.
        """
        new = [i for i, id in enumerate(ids) if id not in self]
        if new:
            for i, probabilities in zip(new, network(images[new]).softmax(1), strict=True):
                self.write(ids[i], probabilities)
        return torch.stack([self.read(id) for id in ids]).to(images.device).log()
