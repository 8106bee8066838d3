"""One image in, its mask out: network, inference options and CRF together.

Letters: H×W image.
"""

import numpy as np
import torch
from torch import Tensor

from deeplab_lit.crf import DenseCRF
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.inference import Inference


class Segmenter:
    """Segments images one at a time.

    Args:
        net: as `deeplab_lit.load` gives it, on the device to use.
        inference: how images go through the network. null: whole, at its own scales.
        crf: refines what the network says.
    """

    def __init__(
        self, net: DeepLabV2, inference: Inference | None = None, crf: DenseCRF | None = None
    ) -> None:
        self.net, self.crf = net, crf
        self.inference = inference or Inference()
        self.colours = list(net.classes.values())

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> np.ndarray:
        """Class indices (H,W) uint8 of an image (H,W,3) uint8 RGB on the CPU."""
        pixels = image.to(self.net.preprocess.mean.device).permute(2, 0, 1)[None]
        scores = self.inference(self.net, pixels)[0]
        if self.crf is not None:
            scores = self.crf(image, scores.softmax(dim=0))
        return scores.argmax(dim=0).to("cpu", torch.uint8).numpy()

    def cost(self, size: tuple[int, int]) -> str:
        """What an image (height, width) takes, in words."""
        return f"Network: {self.inference.in_words(self.net, size)}"
