"""Images in, their masks out: network, inference options and CRF together.

Letters: C classes · H×W image.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deeplab_lit.crf import Refiner
from deeplab_lit.crf.dense_crf import Array
from deeplab_lit.crf.pool import RefiningPool, cores
from deeplab_lit.network.inference import Inference

if TYPE_CHECKING:  # torchvision, which it loads, takes a second, and `predict --help` needs none
    from deeplab_lit.network.deeplab import DeepLabV2


class Segmenter:
    """Segment images, one at a time or many.

    Args:
        net: as `deeplab_lit.load` gives it, on the device to use.
        inference: how images go through the network. None: whole, at the network's scales.
        crf: refines its probabilities: a `DenseCRF`, or another `Refiner`.
    """

    def __init__(
        self, net: "DeepLabV2", inference: Inference | None = None, crf: Refiner | None = None
    ) -> None:
        self.net, self.crf = net, crf
        self.inference = inference or Inference()
        self.device = net.preprocess.mean.device
        self.colors = list(net.classes.values())

    @torch.inference_mode()
    def __call__(self, image: Array) -> np.ndarray:
        """Return the class indices (H,W) uint8 of an image (H,W,3) uint8 RGB on the CPU."""
        if self.crf is None:  # without their softmax, which takes long and changes nothing
            return _labels(self._logits(_tensor(image)))
        return _labels(self.probabilities(image))

    @torch.inference_mode()
    def probabilities(self, image: Array) -> Tensor:
        """Return the probabilities (C,H,W) float32 of an image (H,W,3) uint8 RGB on the CPU.

        They are on the device on which the network, or the CRF after it, has computed them.
        """
        image = _tensor(image)
        probabilities = self._logits(image).softmax(dim=0)
        if self.crf is None:
            return probabilities
        if self.crf.stays_on(self.device):
            return self.crf(image, probabilities)
        return torch.as_tensor(self.crf(image.numpy(), probabilities.cpu().numpy()))

    def many(
        self, images: Iterable[tuple[Any, Tensor]], read: Callable[[Tensor], Any] | None = None
    ) -> Iterator[tuple[Any, Tensor, Any]]:
        """Yield each image with its note and its class indices, whichever is done first.

        A CRF on the CPU refines images side by side, while the network sees the next ones.

        Args:
            images: a note and an image (H,W,3) uint8 RGB each, of which a few are read ahead.
            read: what is made of the probabilities (C,H,W) of an image and yielded instead of the
                class indices; several threads call it where a CRF is on the CPU.
        """
        if self.crf is None or self.crf.stays_on(self.device):
            for note, image in images:
                yield note, image, self(image) if read is None else read(self.probabilities(image))
            return
        pool = RefiningPool(self.crf, cores(), read or _labels)
        try:
            for note, image in images:
                with torch.inference_mode():
                    probabilities = self._logits(image).softmax(dim=0).cpu().numpy()
                for done in pool.submit((note, image), image.numpy(), probabilities):
                    yield *done.note, done.labels
            for done in pool.rest():
                yield *done.note, done.labels
        finally:
            pool.stop()

    def _logits(self, image: Tensor) -> Tensor:
        """Return the logits (C,H,W) of an image (H,W,3)."""
        return self.inference(self.net, image.to(self.device).permute(2, 0, 1)[None])[0]

    def cost(self, size: tuple[int, int]) -> str:
        """Say what an image (height, width) costs."""
        return f"Network: {self.inference.in_words(self.net, size)}"


def _tensor(image: Array) -> Tensor:
    """Return an image as a tensor; of an array, a copy: a view may be read-only or run backward."""
    return torch.from_numpy(image.copy()) if isinstance(image, np.ndarray) else image


def _labels(scores: Tensor) -> np.ndarray:
    """Return the class indices (H,W) uint8 of the highest of scores (C,H,W), on the CPU."""
    return scores.argmax(dim=0).to("cpu", torch.uint8).numpy()
