"""The network's probabilities on disk, so that an interrupted evaluation goes on."""

import gzip
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from pydoc import locate
from threading import Lock
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from deeplab_lit.crf.dense_crf import LEAST_PROBABILITY
from deeplab_lit.network.files import sha256_of
from deeplab_lit.whole import whole_file

# What every data set takes: how images are batched, augmented, checked, and which masks are trained
# on. None of it changes an image of a split. A data set's own arguments may, so all of them count.
NOT_IN_IMAGES = {
    *("batch_size", "total_batch_size", "eval_batch_size", "num_workers", "check"),
    *("crop_size", "scales", "color_jitter", "mask_dir", "train_split", "val_split"),
}

# NumPy parses a file's header with ast.literal_eval, and in Python 3.11 two threads that do so at
# once can get "SystemError: AST constructor recursion depth mismatch" (python/cpython#106905)
ONE_AT_A_TIME = Lock()


class CachedProbabilities:
    """A folder with one compressed file an image: float16, and 0 where below 1e-5.

    That rounds a probability by at most one part in 2048 (by 3e-8 where it is below 6e-5). Files
    are written whole, and a damaged one counts as missing; processes may share the folder.

    Args:
        folder: made when first needed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, id: str) -> Path:
        """Where an image's file is; ids may hold slashes, and capitals that a disk ignores."""
        return self.folder / f"{id.replace('/', '_')}-{sha256(id.encode()).hexdigest()[:8]}.npy.gz"

    def write(self, id: str, probabilities: Tensor) -> None:
        """Keep probabilities (C,H,W)."""
        kept = probabilities.where(probabilities >= LEAST_PROBABILITY, 0).half().cpu().numpy()
        with (
            whole_file(self.path(id)) as place,
            gzip.open(place, "wb", compresslevel=1) as file,
        ):
            np.save(file, kept)

    def read(self, id: str) -> Tensor | None:
        """Probabilities (C,H,W) float32 on the CPU that sum to 1; null where none can be read."""
        try:
            with gzip.open(self.path(id), "rb") as file:
                content = BytesIO(file.read())
            with ONE_AT_A_TIME:
                kept = torch.from_numpy(np.load(content)).float()
        except (OSError, EOFError, ValueError, zlib.error):  # not there, or damaged
            return None
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
        kept = [self.read(id) for id in ids]
        new = [i for i, probabilities in enumerate(kept) if probabilities is None]
        if new:
            for i, probabilities in zip(new, network(images[new]).softmax(1), strict=True):
                self.write(ids[i], probabilities)
                kept[i] = self.read(ids[i])
        return torch.stack(kept).to(images.device).log()


def what_decides(ckpt_path: str, data: Namespace, split: str) -> dict[str, Any]:
    """What probabilities depend on, for `claim_results`.

    Args:
        ckpt_path: of the network.
        data: class_path and init_args of the data module.
        split: of the images.
    """
    arguments = {k: v for k, v in vars(data.init_args).items() if k not in NOT_IN_IMAGES}
    if arguments.get("root"):  # said relative to a folder, it may be other data in another one
        arguments["root"] = str(Path(arguments["root"]).absolute())
    kind = locate(data.class_path)  # one class may be imported by several names
    return {
        "checkpoint_sha256": sha256_of(ckpt_path),
        "data": {"class": f"{kind.__module__}.{kind.__qualname__}", **arguments},
        "split": split,
    }
