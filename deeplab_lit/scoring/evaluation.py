"""How a trained network is evaluated: what `--eval.…` says."""

from dataclasses import dataclass

from torch import Tensor

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.inference import Inference
from deeplab_lit.scoring.probability_cache import CachedProbabilities
from deeplab_lit.scoring.trimap import Around


@dataclass
class Evaluation(Inference):
    """How a trained network is evaluated; never part of a checkpoint.

    Args:
        cache_dir: of validate: keep the network's probabilities there, as 16-bit floats, and take
            those of images that are there already.
        band: of validate: mIoU of the pixels near borders too, by their distance from them: "void"
            (the paper's Fig. 10) or "classes"; see scoring/trimap.py.
    """

    cache_dir: str | None = None
    band: Around | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cache_dir == "":
            raise ValueError("--eval.cache_dir must name a folder, got nothing")
        self._cache: CachedProbabilities | None = None

    def logits(self, net: DeepLabV2, batch: dict) -> Tensor:
        """Logits (B,C,H,W) of a batch; log-probabilities where they are cached."""
        if self.cache_dir is None:
            return self(net, batch["image"])
        if self._cache is None:
            self._cache = CachedProbabilities(self.cache_dir, net.num_classes)
        return self._cache.log_probabilities(batch["id"], batch["image"], lambda x: self(net, x))

    def from_cache(self) -> tuple[int, int]:
        """Return how many images this process took from the cache, and how many were unfit."""
        return (self._cache.reused, self._cache.replaced) if self._cache else (0, 0)
