"""Every validation scored a second time, after the dense CRF."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
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
    CRF lets go of Python's lock); what is waiting is bounded. On a GPU they are refined there. Each
    process refines its own images, and the confusion matrices are added.

    Args:
        options: of the CRF.
        see: called with each image's id, labels (H,W) after the CRF, and mask (H,W).

    Attributes:
        scores: of the last validation, after the CRF.
        results: for results.json: parameters, backend, seconds an image; filled when known.
    """

    def __init__(
        self, options: CRFOptions, see: tuple[Callable[[str, Tensor, Tensor], None], ...] = ()
    ) -> None:
        self.crf = options.build(threads=1)
        self.see = see
        self.scores: Scores | None = None
        self.results: dict[str, Any] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        device = pl_module.device
        self.results |= described(self.crf, device.type)
        self.on_device = device.type != "cpu" and self.results["backend"] == "torch"
        self.metric = SegmentationScores(len(pl_module.hparams.classes)).to(device)
        self.workers = max((os.cpu_count() or 1) // trainer.num_devices, 1)
        self.pool = ThreadPoolExecutor(self.workers, "crf")
        self.waiting: dict[Future, tuple[str, Tensor]] = {}
        self.seconds: list[float] = []
        loader = trainer.val_dataloaders
        alone = trainer.state.fn == "validate" and trainer.is_global_zero
        self.bar = tqdm(
            desc=f"CRF ({self.results['backend']})",
            total=min(trainer.num_val_batches[0] * loader.batch_size, len(loader.sampler)),
            unit=" images",
            disable=not alone or trainer.progress_bar_callback is None,
            position=1,
            mininterval=0.2 if sys.stderr.isatty() else 15,
            dynamic_ncols=True,
        )

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
        for image, own, id, mask in zip(
            images, probabilities, batch["id"], batch["mask"], strict=True
        ):
            if self.on_device:
                self._count(self._refine(image, own), id, mask)
            else:
                self.waiting[self.pool.submit(self._refine, image, own)] = id, mask
        while len(self.waiting) > 2 * self.workers:
            self._take_one()

    def _refine(self, image: np.ndarray | Tensor, probabilities: np.ndarray | Tensor) -> Tensor:
        """Class indices (H,W) of one image after the CRF."""
        start = perf_counter()
        labels = torch.as_tensor(self.crf(image, probabilities).argmax(0))
        self.seconds.append(perf_counter() - start)
        return labels

    def _take_one(self) -> None:
        """Count an image that is done, whichever: a slow one holds up no other."""
        done, _ = wait(self.waiting, return_when=FIRST_COMPLETED)
        labels = done.pop()
        self._count(labels.result(), *self.waiting.pop(labels))

    def _count(self, labels: Tensor, id: str, mask: Tensor) -> None:
        self.metric.update(labels[None].to(mask.device), mask[None])
        for see in self.see:
            see(id, labels, mask)
        self.bar.set_postfix_str(f"{np.median(self.seconds):.2f} s each", refresh=False)
        self.bar.update()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the last images, score all."""
        while self.waiting:
            self._take_one()
        self.pool.shutdown()
        self.bar.close()
        self.scores = scores = self.metric.compute()
        self.results["seconds_per_image"] = float(np.median(self.seconds)) if self.seconds else None
        values = scores.named("val_crf", pl_module.hparams.classes)
        pl_module.log_dict(values, sync_dist=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Do not begin what nobody waits for."""
        if hasattr(self, "pool"):
            self.pool.shutdown(wait=False, cancel_futures=True)
            self.bar.close()
