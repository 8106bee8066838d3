"""Keep a network's probabilities on disk, so that an interrupted evaluation goes on.

Letters: B batch · C classes · H×W image.
"""

import gzip
import io
import math
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from inspect import signature
from pathlib import Path
from pydoc import locate
from typing import IO, Any

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.crf.dense_crf import LEAST_PROBABILITY
from deeplab_lit.data import SegmentationData
from deeplab_lit.network.weights.read import sha256_of

FORMER = {  # today's name of a class → the one under which caches hold it
    "deeplab_lit.data.devkit.PascalContext": "deeplab_lit.data.pascal_context.PascalContext",
    "deeplab_lit.data.devkit.PersonPart": "deeplab_lit.data.person_part.PersonPart",
}


class CachedProbabilities:
    """Keep probabilities in a folder, one compressed file an image: float16, 0 where below 1e-5.

    That rounds a probability by at most one part in 2048 (by 3e-8 where it is below 6e-5). Files
    are written whole; processes may share the folder. A file holds the fingerprint of its image
    too, and counts as missing where the image is another by now, or where it is damaged.

    Args:
        folder: made when first needed.
        num_classes: C.

    Attributes:
        reused: how many images were read from here.
        replaced: how many had a file that was damaged, or of another image.
    """

    def __init__(self, folder: str | Path, num_classes: int) -> None:
        self.folder = Path(folder)
        self.num_classes = num_classes
        self.reused = self.replaced = 0

    def path(self, id: str) -> Path:
        """Return an image's file; ids may hold slashes, and capitals that a disk ignores."""
        return self.folder / f"{id.replace('/', '_')}-{sha256(id.encode()).hexdigest()[:8]}.npy.gz"

    def write(self, id: str, image: np.ndarray, probabilities: Tensor) -> Tensor:
        """Keep probabilities (C,H,W) of an image (H,W,3); return them as `read` would."""
        kept = probabilities.where(probabilities >= LEAST_PROBABILITY, 0).half().cpu().contiguous()
        with (
            atomic_write(self.path(id)) as place,
            gzip.open(place, "wb", compresslevel=1) as file,
        ):
            np.save(file, _fingerprint(image))
            np.save(file, kept.numpy())
        return _normalized(kept)

    def read(self, id: str, image: np.ndarray) -> Tensor | None:
        """Return probabilities (C,H,W) float32 on the CPU that sum to 1; None: cannot be read."""
        try:
            with gzip.open(self.path(id), "rb") as file:
                of_image = np.array_equal(_load(file, np.uint8, (32,)), _fingerprint(image))
                shape = (self.num_classes, *image.shape[:2])
                kept = _load(file, np.float16, shape) if of_image else None
                file.read()  # gzip compares its checksum at the end only
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, zlib.error):
            kept = None
        if kept is None:
            self.replaced += 1
            return None
        return _normalized(torch.from_numpy(kept))

    def log_probabilities(
        self, ids: Sequence[str], images: Tensor, network: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return log-probabilities (B,C,H,W): read where they are kept, else computed and kept.

        Both ways they are the rounded ones, so an evaluation that goes on gives the same score.

        Args:
            ids: of the images.
            images: (B,3,H,W).
            network: images to logits of the same size.
        """
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        read = [self.read(id, image) for id, image in zip(ids, pixels, strict=True)]
        kept = {i: values for i, values in enumerate(read) if values is not None}
        new = [i for i in range(len(ids)) if i not in kept]
        self.reused += len(kept)
        if new:
            for i, probabilities in zip(new, network(images[new]).softmax(1), strict=True):
                kept[i] = self.write(ids[i], pixels[i], probabilities)
        return torch.stack([kept[i] for i in range(len(ids))]).to(images.device).log()


def _normalized(kept: Tensor) -> Tensor:
    """Return rounded probabilities (C,H,W) float16 as float32 that sum to 1."""
    probabilities = kept.float()
    return probabilities / probabilities.sum(0)


def _fingerprint(image: np.ndarray) -> np.ndarray:
    """Return the SHA-256, (32,) uint8, of an image's size and values."""
    about = f"{image.shape} {image.dtype} ".encode()
    digest = sha256(about + np.ascontiguousarray(image).tobytes()).digest()
    return np.frombuffer(digest, np.uint8)


def _load(file: IO[bytes] | gzip.GzipFile, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Read the next array of a file, whose header must be the one that NumPy writes for it.

    Not with `np.load`: it parses headers with `ast.literal_eval`, and in Python 3.11 two threads
    that do so at once can get a SystemError (python/cpython#106905).

    Raises:
        ValueError: another dtype or shape is there, or no array.
    """
    header = io.BytesIO()
    about = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    if file.read(header.tell()) != header.getvalue():
        raise ValueError(f"no array {shape} of {np.dtype(dtype)}")
    content = bytearray(file.read(math.prod(shape) * np.dtype(dtype).itemsize))
    return np.frombuffer(content, dtype).reshape(shape)


def cache_key(ckpt_path: str, data: Namespace, split: str) -> dict[str, Any]:
    """Return what probabilities depend on, for `open_results_folder`.

    Args:
        ckpt_path: of the network.
        data: class_path and init_args of the data module.
        split: of the images.
    """
    # what all data sets take says which split is for what, and what one takes beside, what is in it
    shared = signature(SegmentationData).parameters
    arguments = {k: v for k, v in vars(data.init_args).items() if k not in shared}
    if arguments.get("root"):  # said relative to a folder, it may be other data in another one
        arguments["root"] = str(Path(arguments["root"]).absolute())
    kind: Any = locate(data.class_path)  # one class may be imported by several names
    name = f"{kind.__module__}.{kind.__qualname__}"
    return {
        "checkpoint_sha256": sha256_of(ckpt_path),
        "data": {"class": FORMER.get(name, name), **arguments},
        "split": split,
    }
