"""Score and segment images: the plain loop that ports write, and what our commands run.

Each function takes a network and files, does all the work, and returns a function that gives the
mIoU, in 0…1.
"""

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch.nn import functional as F

from deeplab_lit.crf import DenseCRF
from deeplab_lit.data.decode import FORMATS
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.voc import VOC
from deeplab_lit.loading.batches import SegmentationDataset, build_loader
from deeplab_lit.loading.sampler import EverySampleOnce
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.pictures.masks import palette_image
from deeplab_lit.scoring.evaluation import ScoredNetwork
from deeplab_lit.scoring.metric import mean_iou
from deeplab_lit.scoring.validation import Validation
from deeplab_lit.segment.images import Job, Results, segment_images
from deeplab_lit.segment.segmenter import Segmenter

MIoU = Callable[[], float]
COLORS = list(VOC.classes.values())


def plain_loop(net: DeepLabV2, split: FileSplit, crf: DenseCRF | None) -> MIoU:
    """Score one image after the other: network, logits enlarged, softmax, argmax, histogram.

    Args:
        net: in evaluation mode.
        split: the images with their masks.
        crf: called on each image in its turn; None: no CRF.
    """
    confusion = np.zeros((net.num_classes, net.num_classes), np.int64)
    for pair in split.pairs:
        image = cv2.imread(str(pair.image), cv2.IMREAD_COLOR_RGB)
        assert image is not None, pair.image
        with torch.no_grad():
            pixels = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None]
            logits = net.logits(pixels).fused
            logits = F.interpolate(
                logits, image.shape[:2], mode="bilinear", align_corners=net.align_corners
            )
            probabilities = F.softmax(logits, dim=1)[0].cpu().numpy()
        if crf is not None:
            probabilities = crf(image, probabilities)
        confusion += _histogram(_mask(pair.mask), probabilities.argmax(axis=0), net.num_classes)
    return partial(mean_iou, torch.from_numpy(confusion))


def validate(net: DeepLabV2, split: FileSplit, crf: DenseCRF | None, *, half: bool = False) -> MIoU:
    """Score images as `validate` does, without the pictures and charts that it draws.

    Args:
        net: the network.
        split: the images with their masks.
        crf: refines images beside the network; None: no CRF.
        half: the network computes in bfloat16.
    """
    dataset = SegmentationDataset(split)
    trainer = Trainer(
        accelerator="cpu",
        precision="bf16-mixed" if half else "32-true",
        logger=False,
        callbacks=[Validation(crf=crf)],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    loader = build_loader(dataset, EverySampleOnce(dataset), batch_size=1, num_workers=0)
    trainer.validate(ScoredNetwork(net, VOC.classes), loader, verbose=False)
    return partial(float, trainer.callback_metrics["val/miou" if crf is None else "val_crf/miou"])


def predict(
    net: DeepLabV2, split: FileSplit, crf: DenseCRF | None, out: Path, *, half: bool = False
) -> MIoU:
    """Segment images as `predict` does: a mask and an overlay of each are written.

    Args:
        net: the network.
        split: the images with their masks.
        crf: refines images beside the network; None: no CRF.
        out: folder of the results.
        half: the network computes in bfloat16.
    """
    jobs = [Job(pair.image, out / f"{pair.id}.png", out / f"{pair.id}.jpg") for pair in split.pairs]
    results = Results(partial(palette_image, colors=COLORS), COLORS)
    segmenter = Segmenter(net, crf=crf, precision=torch.bfloat16 if half else torch.float32)
    with redirect_stdout(StringIO()):  # what a pass through the network costs is said each time
        segment_images(segmenter, jobs, results, num_workers=0)
    return partial(_miou_of, split, [job.mask for job in jobs], net.num_classes)


def _miou_of(split: FileSplit, masks: Sequence[Path], num_classes: int) -> float:
    """Return the mIoU of mask files."""
    pairs = zip(split.pairs, masks, strict=True)
    confusion = sum(_histogram(_mask(pair.mask), _mask(path), num_classes) for pair, path in pairs)
    return mean_iou(torch.as_tensor(confusion))


def _mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path, formats=FORMATS))


def _histogram(truth: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the confusion matrix (C,C) of an image, true classes in its rows."""
    counts = truth < num_classes
    cells = num_classes * truth[counts].astype(int) + labels[counts]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
