"""Every validation scored a second time, after the dense CRF."""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from deeplab_lit.crf.options import CRFOptions, described
from deeplab_lit.training.metric import Scores, SegmentationScores


class CRFScores(Callback):
    """Refines the network's probabilities at native size and logs val_crf/… beside val/….

    On a CPU, images are refined in parallel with the network and each other, one thread each (the
    CRF lets go of Python's lock); what is waiting is bounded, so a slow image holds nothing up but
    itself. On a GPU they are refined there. Each process refines its own images, and the confusion
    matrices are added.

    Args:
        options: of the CRF.

    Attributes:
        scores: of the last validation, after the CRF.
        results: for results.json: parameters, backend, seconds an image; filled when known.
    """

    def __init__(self, options: CRFOptions) -> None:
        self.crf = options.build(threads=1)
        self.workers = os.cpu_count() or 1
        self.scores: Scores | None = None
        self.results: dict[str, Any] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        device = pl_module.device
        self.results |= described(self.crf, device.type)
        self.on_device = device.type != "cpu" and self.results["backend"] == "torch"
        self.metric = SegmentationScores(len(pl_module.hparams.classes)).to(device)
        self.pool = ThreadPoolExecutor(self.workers, "crf")
        self.waiting: deque[tuple[Future, Tensor]] = deque()
        self.seconds: list[float] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hand over a batch's logits (B,C,H,W); count what is done."""
        probabilities = outputs.softmax(dim=1)
        images = batch["image"].permute(0, 2, 3, 1)
        if not self.on_device:
            probabilities, images = probabilities.cpu().numpy(), images.cpu().numpy()
        for image, own, mask in zip(images, probabilities, batch["mask"], strict=True):
            if self.on_device:
                self._count(self._refine(image, own), mask)
            else:
                self.waiting.append((self.pool.submit(self._refine, image, own), mask))
        while len(self.waiting) > 2 * self.workers:
            self._take_oldest()

    def _refine(self, image: np.ndarray | Tensor, probabilities: np.ndarray | Tensor) -> Tensor:
        """Class indices (H,W) of one image after the CRF."""
        start = perf_counter()
        labels = torch.as_tensor(self.crf(image, probabilities).argmax(0))
        self.seconds.append(perf_counter() - start)
        return labels

    def _take_oldest(self) -> None:
        future, mask = self.waiting.popleft()
        self._count(future.result(), mask)

    def _count(self, labels: Tensor, mask: Tensor) -> None:
        self.metric.update(labels[None].to(mask.device), mask[None])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the last images, score all."""
        left = tqdm(
            range(len(self.waiting)),
            "refining with the CRF",
            unit=" images",
            leave=False,
            disable=not trainer.is_global_zero,
        )
        for _ in left:
            self._take_oldest()
        self.pool.shutdown()
        self.scores = scores = self.metric.compute()
        self.results["seconds_per_image"] = float(np.median(self.seconds))
        values = scores.named("val_crf", pl_module.hparams.classes)
        pl_module.log_dict(values, sync_dist=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Do not begin what nobody waits for."""
        if hasattr(self, "pool"):
            self.pool.shutdown(wait=False, cancel_futures=True)
