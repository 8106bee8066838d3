"""Images in, their masks out: network, inference options and CRF together.

Letters: C classes · H×W image.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
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

Present = Sequence[int] | None  # indices of the classes that an image may hold; None: all


class Segmenter:
    """Segment images, one at a time or many.

    Args:
        net: as `deeplab_lit.load` gives it, on the device to use.
        inference: how images go through the network. None: whole, at the network's scales.
        crf: refines its probabilities: a `DenseCRF`, or another `Refiner`.
        precision: of the network, by autocast: float32, bfloat16 or float16.
    """

    def __init__(
        self,
        net: "DeepLabV2",
        inference: Inference | None = None,
        crf: Refiner | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.net, self.crf, self.precision = net, crf, precision
        self.inference = inference or Inference()
        self.device = net.preprocess.mean.device
        self.colors = list(net.classes.values())

    @torch.inference_mode()
    def __call__(self, image: Array, present: Present = None) -> np.ndarray:
        """Return the class indices (H,W) uint8 of an image.

        Args:
            image: (H,W,3) uint8 RGB, on the CPU.
            present: indices of the classes that it may hold; None: all.
        """
        if self.crf is None:  # without their softmax, which takes long and changes nothing
            return class_indices(self._logits(_tensor(image), present), present)
        return class_indices(self.probabilities(image, present))

    @torch.inference_mode()
    def probabilities(self, image: Array, present: Present = None) -> Tensor:
        """Return the probabilities (C,H,W) float32 of an image.

        They are on the device on which the network, or the CRF after it, has computed them.

        Args:
            image: (H,W,3) uint8 RGB, on the CPU.
            present: indices of the classes that it may hold, which the CRF sees alone; the others
                get 0. None: all.
        """
        image = _tensor(image)
        probabilities = self._logits(image, present).softmax(dim=0)
        if self.crf is None:
            return self._of_all(probabilities, present)
        if self.crf.stays_on(self.device):
            return self._of_all(self.crf(image, probabilities), present)
        refined = self.crf(image.numpy(), probabilities.cpu().numpy())
        return self._of_all(torch.as_tensor(refined), present)

    def many(
        self,
        images: Iterable[tuple[Any, Tensor]],
        read: Callable[[Any, Tensor], Any] | None = None,
        present: Callable[[Any], Present] | None = None,
    ) -> Iterator[tuple[Any, Tensor, Any]]:
        """Yield each image with its note and its class indices, whichever is done first.

        A CRF on the CPU refines images side by side, while the network sees the next ones.

        Args:
            images: a note and an image (H,W,3) uint8 RGB each, of which a few are read ahead.
            read: what is made of the note and the probabilities (C,H,W) of an image and yielded
                instead of the class indices; several threads call it where a CRF is on the CPU.
            present: gives, for a note, the classes that its image may hold, as above.
        """
        present = present or (lambda _: None)
        if self.crf is None or self.crf.stays_on(self.device):
            for note, image in images:
                if read is None:
                    yield note, image, self(image, present(note))
                else:
                    yield note, image, read(note, self.probabilities(image, present(note)))
            return
        pool = RefiningPool(self.crf, cores())
        try:
            for note, image in images:
                with torch.inference_mode():
                    logits = self._logits(image, present(note))
                    probabilities = logits.softmax(dim=0).cpu().numpy()
                finish = partial(self._finish, note, present(note), read)
                for done in pool.submit((note, image), image.numpy(), probabilities, finish):
                    yield *done.note, done.labels
            for done in pool.rest():
                yield *done.note, done.labels
        finally:
            pool.stop()

    def _finish(
        self,
        note: Any,
        present: Present,
        read: Callable[[Any, Tensor], Any] | None,
        refined: Tensor,
    ) -> Any:
        """Return what is made of an image's refined probabilities, of the classes present."""
        if read is None:
            return class_indices(refined, present)
        return read(note, self._of_all(refined, present))

    def _logits(self, image: Tensor, present: Present) -> Tensor:
        """Return the logits (C,H,W) of an image (H,W,3), or those of the classes present."""
        images = image.to(self.device).permute(2, 0, 1)[None]
        is_half = self.precision != torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=is_half):
            logits = self.inference(self.net, images)[0]
        return logits if present is None else logits[list(present)]

    def _of_all(self, probabilities: Tensor, present: Present) -> Tensor:
        """Return the probabilities of all classes: 0 for those that are not present."""
        if present is None:
            return probabilities
        of_all = probabilities.new_zeros((len(self.colors), *probabilities.shape[1:]))
        of_all[list(present)] = probabilities
        return of_all

    def cost(self, size: tuple[int, int]) -> str:
        """Say what an image (height, width) costs."""
        return f"Network     {self.inference.in_words(self.net, size)}"


def _tensor(image: Array) -> Tensor:
    """Return an image as a tensor; of an array, a copy: a view may be read-only or run backward."""
    return torch.from_numpy(image.copy()) if isinstance(image, np.ndarray) else image


def class_indices(scores: Tensor, present: Present = None) -> np.ndarray:
    """Return the class indices (H,W) uint8 of the highest scores, on the CPU.

    Args:
        scores: (C,H,W), or those of the classes present.
        present: indices of these; None: all.
    """
    labels = scores.argmax(dim=0).to("cpu", torch.uint8).numpy()
    return labels if present is None else np.array(present, np.uint8)[labels]
