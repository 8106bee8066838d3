"""A validation, image by image: labels of the network and after the CRF, and who looks at them.

Data flows one way: `ScoredModule.validation_step` → `Validation`, which runs the CRF → observers,
each of which sees every image once → what they return, with the scores → the report.

Letters: B batch · C classes · H×W image.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from numbers import Real
from time import perf_counter
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deeplab_lit.crf.dense_crf import Refiner
from deeplab_lit.crf.pool import RefiningPool, cores
from deeplab_lit.errors import UserError
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.scoring.evaluation import Prediction, ScoredModule
from deeplab_lit.scoring.metric import Scores, SegmentationScores, finite
from deeplab_lit.scoring.observer import Observer, ObserverError, Results, ScoredImage


class Validation(Callback):
    """Refine images beside the network, score them again, and show each to the observers.

    Scores after the CRF are logged as val_crf/…, what observers find as val/…. All logging is done
    in `on_validation_epoch_end`, the report in `on_validation_end`; Lightning calls checkpoint
    callbacks after all others. So what a checkpoint goes by is logged, and what it keeps of the
    report is up to date, wherever this callback stands in the list.

    Args:
        observers: see each image once.
        crf: the CRF, or a replacement. None: neither.
        report: called on every process after each validation, with the trainer and the results.
    """

    def __init__(
        self,
        observers: Sequence[Observer] = (),
        crf: Refiner | None = None,
        report: Callable[[Trainer, Results], None] | None = None,
    ) -> None:
        self.observers = observers
        self.refinement = None if crf is None else Refinement(crf)
        self.report = report
        self.images = 0  # that the network has scored, on this process
        self.results: Results | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        network = _network(pl_module)
        self.images, self.results = 0, None
        if self.refinement is not None:
            self.refinement.start(trainer, network)
        if not trainer.sanity_checking:
            for observer in self.observers:
                observer.start(trainer, network)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Begin to refine a batch, and show what is complete."""
        needed = ("labels",) if self.refinement is None else ("labels", "logits")
        prediction = _prediction(outputs, needed, pl_module)
        device = pl_module.device if self.refinement is None else self.refinement.device
        batch = _network(pl_module).evaluation.as_scored(batch)
        masks = prediction.get("mask", batch["mask"])
        tensors = batch["image"].permute(0, 2, 3, 1), masks, prediction["labels"].byte()
        places = range(self.images, self.images + len(batch["id"]))
        self.images += len(batch["id"])
        images: Iterable[ScoredImage] = map(
            ScoredImage, places, batch["id"], *(tensor.to(device) for tensor in tensors)
        )
        if self.refinement is not None:
            images = self.refinement.refine(list(images), prediction["logits"].softmax(dim=1))
        self._show(trainer, images)

    def _show(self, trainer: Trainer, images: Iterable[ScoredImage]) -> None:
        for image in images:
            for observer in self.observers if not trainer.sanity_checking else ():
                observer.see(image)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the last images, score all, ask the observers, and log."""
        network = _network(pl_module)
        refined: Scores | None = None
        about: dict[str, Any] = {}
        if self.refinement is not None:
            self._show(trainer, self.refinement.rest())
            refined, about = self.refinement.scores()
            network.log_dict(refined.named("val_crf", network.classes), sync_dist=True)
        if trainer.sanity_checking:
            return
        scores = network.count_scores()
        images = torch.tensor(self.images, device=trainer.strategy.root_device)
        loader: Any = trainer.val_dataloaders
        results = Results(
            *(scores, refined, about, {}, {}),
            images=int(trainer.strategy.reduce(images, reduce_op="sum")),
            images_in_split=len(loader.dataset),
            classes=list(network.classes),
        )
        known = {*results.as_dict(), "step", "loss", "crf", "metrics"}
        for observer in self.observers:
            for name, value in _plain_findings(observer, trainer, scores, refined).items():
                if name in known:
                    raise ObserverError(
                        f"{type(observer).__name__}.finish returns {name!r}, which is the name of "
                        "another result: choose another one"
                    )
                known.add(name)
                if isinstance(value, Real) and not isinstance(value, bool):
                    results.metrics[name] = float(value)
                else:
                    results.entries[name] = _for_json(value)
        network.log_dict({f"val/{k}": v for k, v in results.metrics.items()}, sync_dist=True)
        self.results = results

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report."""
        if self.results is not None and self.report is not None:
            self.report(trainer, self.results)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Do not begin to refine what nobody waits for."""
        if self.refinement is not None:
            self.refinement.stop()


class Refinement:
    """Refine the images of this process with the CRF, and score them.

    On a CPU, images are refined in parallel with the network and each other (crf/pool.py), a
    bounded number of them at a time, and wait in the machine's memory, not in a GPU's. On a GPU
    they are refined there, a batch at a time. Each process refines its own images; the confusion
    matrices are added.

    Args:
        crf: the CRF, or a replacement.

    Attributes:
        device: where images must be to be refined.
    """

    def __init__(self, crf: Refiner) -> None:
        self.crf = crf
        self.device = torch.device("cpu")
        self.pool: RefiningPool | None = None

    def start(self, trainer: Trainer, network: ScoredModule) -> None:
        """Begin anew."""
        self.on_device = self.crf.stays_on(network.device)
        self.device = network.device if self.on_device else torch.device("cpu")
        self.about = self.crf.settings(network.device)
        self.metric = SegmentationScores(len(network.classes)).to(network.device)
        self.subsets = network.subsets
        self.pool = RefiningPool(self.crf, max(cores() // trainer.num_devices, 1))
        self.seconds: list[float] = []
        alone = trainer.state.fn == "validate" and trainer.is_global_zero
        self.bar = progress_bar(
            desc="CRF",
            total=images_here(trainer),
            unit=" images",
            disable=not alone or trainer.progress_bar_callback is None,
            position=1,
        )

    def refine(self, images: list[ScoredImage], probabilities: Tensor) -> Iterator[ScoredImage]:
        """Hand over a batch, and yield what is complete, of this batch or of earlier ones.

        Args:
            images: on `device`.
            probabilities: (B,C,H,W), on the network's device.
        """
        if self.on_device:
            start = perf_counter()
            labels = self.crf(torch.stack([image.image for image in images]), probabilities)
            labels = labels.argmax(1).byte()
            labels.cpu()  # waits for the device
            seconds = (perf_counter() - start) / len(images)
            for image, refined in zip(images, labels, strict=True):
                yield self._count(image, refined, seconds)
            return
        assert self.pool is not None
        for image, values in zip(images, probabilities.cpu().numpy(), strict=True):
            for done in self.pool.submit(image, image.image.numpy(), values):
                yield self._count(done.note, done.labels, done.seconds)

    def rest(self) -> Iterator[ScoredImage]:
        """Wait for all that is left, and yield one after the other."""
        assert self.pool is not None
        for done in self.pool.rest():
            yield self._count(done.note, done.labels, done.seconds)
        self.bar.close()

    def _count(self, image: ScoredImage, labels: Tensor, seconds: float) -> ScoredImage:
        device = self.metric.device
        self.metric.update(labels[None].to(device), image.mask[None].to(device))
        self.seconds.append(seconds)
        self.bar.set_postfix_str(f"{np.median(self.seconds):.2f} s each", refresh=False)
        self.bar.update()
        return replace(image, refined=labels.byte())

    def scores(self) -> tuple[Scores, dict[str, Any]]:
        """Return the scores of all processes; and the CRF's parameters, backend and seconds."""
        seconds = float(np.median(self.seconds)) if self.seconds else None
        scores = Scores(self.metric.compute().confusion, subsets=self.subsets)
        return scores, {**self.about, "seconds_per_image": seconds}

    def stop(self) -> None:
        """Do not begin what nobody waits for."""
        if self.pool is not None:
            self.pool.stop()
            self.bar.close()


def images_here(trainer: Trainer) -> int:
    """Return how many images this process scores in a validation."""
    loader: Any = trainer.val_dataloaders
    return int(min(trainer.num_val_batches[0] * loader.batch_size, len(loader.sampler)))


def _prediction(outputs: Any, needed: Sequence[str], module: LightningModule) -> Prediction:
    """Return what a validation step has returned, or refuse it where tensors are missing."""
    values: Any = outputs if isinstance(outputs, dict) else {}
    if all(isinstance(values.get(name), Tensor) for name in needed):
        return values
    is_dict = isinstance(outputs, dict)
    what = f"a dictionary with {list(outputs)}" if is_dict else type(outputs).__name__
    raise UserError(
        f"{type(module).__name__}.validation_step must return logits (B,C,H,W) and labels (B,H,W) "
        f"of the batch, got {what:.80}: return what super().validation_step(batch, batch_idx) "
        "returns, or Prediction(logits=…, labels=…) of deeplab_lit.scoring.evaluation"
    )


def _plain_findings(
    observer: Observer, trainer: Trainer, scores: Scores, refined: Scores | None
) -> dict[str, Any]:
    """Return what an observer has found as plain data, on every process alike.

    Raises:
        ObserverError: it returns something that neither results.json nor a checkpoint can hold.
    """
    whose = f"{type(observer).__name__}.finish"
    findings = observer.finish(trainer, scores, refined)
    if not isinstance(findings, dict):
        raise ObserverError(
            f"{whose} returns {findings!r:.80}, expected a dictionary from names to what was "
            "found; {} for nothing"
        )
    return {str(name): _plain(value, f"{whose}, {name!r}") for name, value in findings.items()}


def _plain(value: Any, title: str) -> Any:
    """Return numbers, text, and lists and dictionaries of them; arrays and tensors as such."""
    if isinstance(value, Tensor | np.ndarray):
        size = value.numel() if isinstance(value, Tensor) else value.size
        value = value.item() if size == 1 else value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {_plain(key, title): _plain(part, title) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, title) for part in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)  # of a subclass, plain
    if isinstance(value, Real):
        return float(value)
    raise ObserverError(
        f"{title} is {type(value).__name__} {value!r:.80}, which results.json cannot hold: return "
        "numbers, text, or lists and dictionaries of them"
    )


def _for_json(value: Any) -> Any:
    """Return plain data with None for NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _for_json(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_for_json(part) for part in value]
    return finite(value) if isinstance(value, float) else value


def _network(module: LightningModule) -> ScoredModule:
    if not isinstance(module, ScoredModule):
        raise TypeError(f"Validation scores a ScoredNetwork or a DeepLabModule, got {type(module)}")
    return module
