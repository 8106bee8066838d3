"""Every validation scored a second time, after the dense CRF."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deeplab_lit.crf import Refiner
from deeplab_lit.crf.pool import Refined, RefiningPool, cores
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.scoring.metric import Scores, SegmentationScores


class CRFScores(Callback):
    """Refines the network's probabilities at native size and logs val_crf/… beside val/….

    On a CPU, images are refined in parallel with the network and each other (crf/pool.py). On a GPU
    they are refined there, a batch at a time. Each process refines its own images, and the
    confusion matrices are added.

    Args:
        crf: the CRF, or a replacement.
        see: called with each image's id, labels (H,W) after the CRF, and mask (H,W).

    Attributes:
        scores: of the last validation, after the CRF.
        results: for results.json: parameters, backend, seconds an image; filled when known.
    """

    def __init__(
        self, crf: Refiner, see: tuple[Callable[[str, Tensor, Tensor], None], ...] = ()
    ) -> None:
        self.crf = crf
        self.see = see
        self.scores: Scores | None = None
        self.results: dict[str, Any] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        device = pl_module.device
        self.results |= self.crf.settings(device)
        self.on_device = self.crf.stays_on(device)
        self.metric = SegmentationScores(len(pl_module.hparams.classes)).to(device)
        self.pool = RefiningPool(self.crf, max(cores() // trainer.num_devices, 1))
        self.seconds: list[float] = []
        loader = trainer.val_dataloaders
        alone = trainer.state.fn == "validate" and trainer.is_global_zero
        self.bar = progress_bar(
            desc="CRF",
            total=min(trainer.num_val_batches[0] * loader.batch_size, len(loader.sampler)),
            unit=" images",
            disable=not alone or trainer.progress_bar_callback is None,
            position=1,
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
        samples = list(zip(batch["id"], batch["mask"], strict=True))
        if self.on_device:
            start = perf_counter()
            labels = self.crf(images, probabilities).argmax(1).cpu()  # waits for the device
            seconds = (perf_counter() - start) / len(samples)
            for sample, own in zip(samples, labels, strict=True):
                self._count(Refined(sample, own, seconds))
            return
        arrays = images.cpu().numpy(), probabilities.cpu().numpy()
        for sample, image, own in zip(samples, *arrays, strict=True):
            for refined in self.pool.submit(sample, image, own):
                self._count(refined)

    def _count(self, refined: Refined) -> None:
        (id, mask), labels = refined.note, refined.labels
        self.metric.update(labels[None].to(mask.device), mask[None])
        for see in self.see:
            see(id, labels, mask)
        self.seconds.append(refined.seconds)
        self.bar.set_postfix_str(f"{np.median(self.seconds):.2f} s each", refresh=False)
        self.bar.update()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the last images, score all."""
        for refined in self.pool.rest():
            self._count(refined)
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
            self.pool.stop()
            self.bar.close()
