"""Evaluate a trained network: the options `--eval.…`, and the module that scores it.

Its probabilities can be kept on disk, so that an interrupted evaluation goes on.

Letters: B batch · C classes · H×W image.
"""

import gzip
import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from inspect import signature
from pathlib import Path
from pydoc import locate
from typing import IO, Any, Literal, TypedDict

import numpy as np
import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningModule
from torch import Tensor

from deeplab_lit.atomic import atomic_write
from deeplab_lit.crf.dense_crf import LEAST_PROBABILITY
from deeplab_lit.data import SegmentationData
from deeplab_lit.data.transforms import resized
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.inference import Inference, resample
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.scoring.metric import PixelLoss, Scores, SegmentationScores
from deeplab_lit.scoring.subsets import NO_SUBSETS, Rule, Subsets
from deeplab_lit.types import Classes

Around = Literal["void", "classes"]  # borders: void pixels, or those between classes

SCORED_RESIZED = (
    "Note: masks are brought to --eval.resize and scored there (--eval.score_resized): such scores "
    "compare with those of papers that do the same, and are higher as a rule"
)

FORMER = {  # today's name of a class → the one under which caches hold it
    "deeplab_lit.data.devkit.PascalContext": "deeplab_lit.data.pascal_context.PascalContext",
    "deeplab_lit.data.devkit.PersonPart": "deeplab_lit.data.person_part.PersonPart",
}


@dataclass
class Evaluation(Inference):
    """Options of an evaluation; never part of a checkpoint.

    Args:
        cache_dir: of validate: keep the network's probabilities there, as 16-bit floats, and take
            those of images that are there already.
        trimap: of validate: mIoU of the pixels near borders too, by their distance from them:
            "void" (the paper's Fig. 10) or "classes"; see scoring/trimap.py.
        score_resized: score at `resize`, masks brought there by the nearest pixel (DACS).
        subsets: score subsets of the classes too, as Cityscapes' 16 and 13: by "rows" of the whole
            matrix, or without the other classes' "pixels"; see scoring/subsets.py. None: "rows"
            where the training data lack classes.
    """

    cache_dir: str | None = None
    trimap: Around | None = None
    score_resized: bool = False
    subsets: Rule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_resized and self.resize is None:
            raise ValueError(
                "--eval.score_resized true scores at the size of --eval.resize: give it, as "
                "--eval.resize '[512, 1024]'"
            )
        if self.cache_dir == "":
            raise ValueError("--eval.cache_dir must name a folder, got nothing")
        self._cache: CachedProbabilities | None = None

    def as_scored(self, batch: dict) -> dict:
        """Return a batch as it is scored: itself, or its images and masks at the size of `resize`.

        Masks are resized as PIL's NEAREST does it (DACS, evaluateUDA.py).

        Args:
            batch: of the validation.
        """
        if not self.score_resized or self.resize is None:
            return batch
        masks = [resized(mask, self.resize, "nearest") for mask in batch["mask"].cpu().numpy()]
        return {
            "image": resample(batch["image"], self.resize, self.resize_filter),
            "mask": torch.from_numpy(np.stack(masks)).to(batch["mask"].device),
            "id": batch["id"],
        }

    def settings(self, net: DeepLabV2) -> dict[str, Any]:
        """Return what decides about the result, for records: the options that do something."""
        scored = {"score_resized": True} if self.score_resized else {}
        return super().settings(net) | scored

    def title(self, net: DeepLabV2) -> str:
        """Say how images are seen and scored, for the title of a table."""
        words = f"scales {list(self.scales or net.scales)}"
        if self.resize is not None:
            words += f", seen {'and scored ' if self.score_resized else ''}at "
            words += f"{self.resize[1]}×{self.resize[0]}"
        return words

    def logits(self, net: DeepLabV2, batch: dict) -> Tensor:
        """Return the logits (B,C,H,W) of a batch; log-probabilities where they are cached."""
        if self.cache_dir is None:
            return self(net, batch["image"])
        if self._cache is None:
            self._cache = CachedProbabilities(self.cache_dir, net.num_classes)
        return self._cache.log_probabilities(batch["id"], batch["image"], lambda x: self(net, x))

    def from_cache(self) -> tuple[int, int]:
        """Return how many images this process took from the cache, and how many were unfit."""
        return (self._cache.reused, self._cache.replaced) if self._cache else (0, 0)


class Prediction(TypedDict):
    """The predictions of a network for a batch of images.

    Attributes:
        logits: (B,C,H,W) float; log-probabilities where they come from a cache.
        labels: (B,H,W) int64, the class of the highest.
    """

    logits: Tensor
    labels: Tensor


class ScoredNetwork(LightningModule):
    """A network with its scores: all that `Trainer.validate` needs, and what a training validates.

    Args:
        net: the network.
        classes: name → RGB color of each class, in the order of the class indices.
        evaluation: how images go through it. None: whole, at the scales it was trained with.
        subsets: of the classes, to be scored too; may be changed at any time.

    Attributes:
        scores: of the last validation, the same on every process; None before the first.
    """

    def __init__(
        self,
        net: DeepLabV2,
        classes: Classes,
        evaluation: Evaluation | None = None,
        subsets: Subsets = NO_SUBSETS,
    ) -> None:
        super().__init__()
        self.net = net
        self.classes = dict(classes)
        net.classes = self.classes
        self.evaluation = evaluation or Evaluation()
        self.subsets = subsets
        self.metric = SegmentationScores(len(classes))
        self.pixel_loss = PixelLoss()
        self.scores: Scores | None = None

    def on_validation_epoch_start(self) -> None:
        """Begin to count, in memory of this process alone: spawned ones share the module's."""
        self.metric.reset()
        self.pixel_loss.reset()

    def validation_step(self, batch: dict, batch_idx: int) -> Prediction:
        """Count a batch, and return what the network makes of it for whoever looks at it.

        The labels are returned too: at 2048×1024 and 19 classes the maximum takes longer than
        anything else beside the network.
        """
        batch = self.evaluation.as_scored(batch)
        logits = self.evaluation.logits(self.net, batch)
        labels = logits.argmax(dim=1)
        self.metric.update(labels, batch["mask"])
        self.pixel_loss.update(logits, batch["mask"])
        return Prediction(logits=logits, labels=labels)

    def count_scores(self) -> Scores:
        """Return the scores of what has been counted, on all processes together.

        The processes talk once, however often it is called.
        """
        confusion, loss = self.metric.compute().confusion, self.pixel_loss.compute()
        return Scores(confusion, loss, self.subsets)

    def on_validation_epoch_end(self) -> None:
        """Keep the scores and log them as val/…."""
        self.scores = self.count_scores()
        values = self.scores.named("val", self.classes)
        self.log("val/miou", values.pop("val/miou"), prog_bar=True, sync_dist=True)
        self.log_dict(values, sync_dist=True)  # they agree; Lightning wants to be told


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
