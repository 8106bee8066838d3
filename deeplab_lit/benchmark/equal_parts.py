"""Compare what a device computes with float32 on the CPU: losses, the metric, inference, the CRF.

Letters: B batch · C classes · H×W image · h×w feature grid.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from deeplab_lit.benchmark.equality import (
    BATCH,
    CLASSES,
    HEIGHT,
    NETWORKS,
    WIDTH,
    Check,
    distance,
    exact_float32,
    images_and_mask,
    network,
)
from deeplab_lit.crf.build import BuildError, compiled
from deeplab_lit.crf.dense_crf import Backend, DenseCRF
from deeplab_lit.crf.mean_field import bilateral_lattice
from deeplab_lit.crf.parameters import PRESETS, CRFError, Parameters
from deeplab_lit.methods.adaptsegnet import SOURCE, TARGET, gan_loss
from deeplab_lit.methods.advent import entropy_loss
from deeplab_lit.methods.dacs import weighted_cross_entropy
from deeplab_lit.network.inference import Inference, resample
from deeplab_lit.network.multiscale import ScaleLogits
from deeplab_lit.scoring.metric import PixelLoss, SegmentationScores
from deeplab_lit.training.loss import deeplab_loss, soft_loss
from deeplab_lit.training.losses import OHEM, Balanced, ClassWeighted
from deeplab_lit.types import VOID

CPU = torch.device("cpu")
GRIDS = ((17, 21), (9, 11))  # of two scales
INFERENCES: dict[str, dict[str, Any]] = {
    "whole images": {},
    "other scales": {"scales": (1.25, 0.5)},
    "windows": {"window": 49},
    "windows, gaussian, in batches": {"window": (41, 57), "blend": "gaussian", "window_batch": 3},
    "mirrored": {"flip": True},
    "several sizes": {"tta_scales": (0.75, 1.0, 1.25)},
    "all at once, maximum": {
        "tta_scales": (0.75, 1.25), "flip": True, "fuse": "max", "window": 49, "window_batch": 4,
    },
    "resized": {"resize": (49, 97)},
    "resized bilinear": {"resize": (97, 49), "resize_filter": "bilinear"},
}  # fmt: skip
CRFS: dict[str, dict[str, Any]] = {
    **PRESETS,
    "wide": {"bi_w": 4, "bi_xy_std": 121, "bi_rgb_std": 5, "pos_w": 3, "pos_xy_std": 3},
    "normalized after": {"normalization": "after"},
    "position alone": {"bi_w": 0},
    "color alone": {"pos_w": 0},
}
CRF_SIZE = (96, 128)  # H×W, a multiple of 4 pixels: else pydensecrf adds some
CRF_TOLERANCES = {"probabilities": 5e-4, "other labels": 1e-4}  # on the CPU: 1.3e-4 and 0


def part_checks() -> Iterator[Check]:
    """Yield the checks of losses, metric, inference and CRF."""
    for name, loss in _losses().items():
        tolerances = {"loss": 1e-5, "gradients": 1e-5}
        yield Check(f"loss {name}", partial(_loss_differences, loss), tolerances)
    yield Check("metric", _metric_differences, {"confusion": 0, "loss": 1e-6})
    for name, options in INFERENCES.items():
        # a resized pixel that is nearly half way between two gray levels may become the other one
        tolerances = {"logits": 1e-2 if "resize" in options else 1e-4}
        differences = partial(_inference_differences, options)
        is_small = name in ("windows, gaussian, in batches", "mirrored", "resized")
        yield Check(f"inference {name}", differences, tolerances, is_small)
    resized = {"beyond a gray level": 0, "share of pixels": 1e-2}
    yield Check("inference resize alone", _resize_differences, resized)
    yield from _crf_checks()


def _crf_checks() -> Iterator[Check]:
    """Yield the checks of the CRF's backends that work here."""
    yield Check("crf lattice", _lattice_differences, {"vertices": 0})
    working = backends()
    for backend in working:
        for name, options in CRFS.items():
            for batch in (1, 3):
                differences = partial(_crf_differences, options, backend, batch)
                title = f"crf in torch {name}, batch {batch}, against {backend} on the CPU"
                is_small = batch == 1 and name == "resnet101"
                yield Check(title, differences, CRF_TOLERANCES, is_small)
    for backend in working[1:]:
        differences = partial(_from_the_device_differences, backend)
        yield Check(f"crf {backend} of tensors on the device", differences, CRF_TOLERANCES)


def backends() -> list[Backend]:
    """Return the CRF's backends that work here, torch first."""
    found: list[Backend] = ["torch"]
    with suppress(BuildError):
        compiled()
        found.append("native")
    with suppress(CRFError):
        DenseCRF(backend="pydensecrf")
        found.append("pydensecrf")
    return found


Loss = Callable[[ScaleLogits, Tensor], Tensor]  # logits of two scales, mask (B,H,W) uint8


def _losses() -> dict[str, Loss]:
    """Return every loss, by name, as a function of logits and mask on one device."""

    def whole(loss: torch.nn.Module | None, size: Any, logits: ScaleLogits, mask: Tensor) -> Tensor:
        moved = None if loss is None else loss.to(mask.device)
        return deeplab_loss(logits, mask, moved, align_corners=True, size=size)

    def void(logits: ScaleLogits, mask: Tensor) -> Tensor:
        return deeplab_loss(logits, torch.full_like(mask, VOID), align_corners=True)

    def soft(logits: ScaleLogits, mask: Tensor) -> Tensor:
        target = F.one_hot(mask.long().clamp(max=CLASSES - 1), CLASSES).permute(0, 3, 1, 2) * 0.9
        return soft_loss(logits, target, mask != VOID, align_corners=True)

    def weighted(logits: ScaleLogits, mask: Tensor) -> Tensor:
        grid = mask[:, : logits.fused.shape[-2], : logits.fused.shape[-1]]
        return weighted_cross_entropy(logits.fused, grid, grid.float() / VOID)

    def adversarial(domain: float, gan: Any, logits: ScaleLogits, mask: Tensor) -> Tensor:
        return gan_loss(logits.fused, domain, gan)

    losses: dict[str, Loss] = {
        "cross-entropy": partial(whole, None, "grid"),
        "cross-entropy at the image's size": partial(whole, None, "image"),
        "cross-entropy of void alone": void,
        "Balanced": partial(whole, Balanced(), "grid"),
        "ClassWeighted": partial(whole, ClassWeighted([1, 2, 0.5, 3, 1, 0.2, 1]), "image"),
        "soft (Distillation)": soft,
        "entropy (MinEnt)": lambda logits, mask: entropy_loss(logits.fused.softmax(1)),
        "weighted cross-entropy (DACS)": weighted,
    }
    for variant in ("hrnet", "toolbox", "bisenet"):
        losses[f"OHEM {variant}"] = partial(whole, OHEM(0.7, None, variant), "image")
    for gan in ("bce", "ls"):
        for domain in (SOURCE, TARGET):
            losses[f"discriminator {gan} {domain:.0f}"] = partial(adversarial, domain, gan)
    return losses


def _loss_differences(loss: Loss, device: torch.device) -> dict[str, float]:
    found, expected = _value_and_gradients(loss, device), _value_and_gradients(loss, CPU)
    return {part: distance(found[part], expected[part]) for part in expected}


def _value_and_gradients(loss: Loss, device: torch.device) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    maps = [3 * torch.randn(BATCH, CLASSES, *grid, generator=random) for grid in GRIDS]
    large, small = (each.to(device).requires_grad_() for each in maps)
    upsampled = F.interpolate(small, large.shape[-2:], mode="bilinear", align_corners=True)
    logits = ScaleLogits(torch.maximum(large, upsampled), [large, small])
    value = loss(logits, images_and_mask()[1].to(device))
    value.backward()
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in (large, small)]
    return {"loss": value, "gradients": torch.cat([x.flatten() for x in gradients])}


def _metric_differences(device: torch.device) -> dict[str, float]:
    """Return how the scores of two batches differ: the confusion matrix, and the loss."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, BATCH, CLASSES, HEIGHT, WIDTH, generator=random)
    counts, losses = [], []
    for place in (device, CPU):
        metric, pixel_loss = SegmentationScores(CLASSES).to(place), PixelLoss().to(place)
        for each in logits.to(place):
            mask = images_and_mask()[1].to(place)
            metric.update(each.argmax(1), mask)
            pixel_loss.update(each, mask)
        counts.append(metric.compute().confusion)
        losses.append(torch.tensor(pixel_loss.compute()))
    return {"confusion": distance(*counts), "loss": distance(*losses)}


def _inference_differences(options: dict[str, Any], device: torch.device) -> dict[str, float]:
    images, _ = images_and_mask()
    net, inference = network(**NETWORKS["resnet10_quarter"]).eval(), Inference(**options)
    there = deepcopy(net).to(device)
    with torch.inference_mode(), exact_float32():
        found, expected = inference(there, images.to(device)), inference(net, images)
    return {"logits": distance(found, expected)}


def _resize_differences(device: torch.device) -> dict[str, float]:
    images, _ = images_and_mask()
    pairs = [
        (
            resample(images.to(device), size, name).cpu().float(),
            resample(images, size, name).float(),
        )
        for size in ((49, 97), (97, 49))
        for name in ("bicubic", "bilinear")
    ]
    apart = torch.cat([(found - expected).abs().flatten() for found, expected in pairs])
    share = (apart > 0).double().mean().item()
    return {"beyond a gray level": max(apart.max().item() - 1, 0), "share of pixels": share}


def crf_input(batch: int, size: tuple[int, int], classes: int = 21) -> tuple[Tensor, Tensor]:
    """Return images (B,H,W,3) uint8, blotches of colors with noise, and probabilities (B,C,H,W)."""
    random = torch.Generator().manual_seed(0)
    h, w = size
    colors = 255 * torch.rand(batch, 3, h // 10 + 1, w // 10 + 1, generator=random)
    images = F.interpolate(colors, size, mode="bicubic")
    images += 2 * torch.randn(batch, 3, h, w, generator=random)
    coarse = 6 * torch.randn(batch, classes, h // 32 + 2, w // 32 + 2, generator=random)
    scores = F.interpolate(coarse, size, mode="bilinear", align_corners=True)
    return images.clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous(), scores.softmax(1)


def _lattice_differences(device: torch.device) -> dict[str, float]:
    """Return how many vertices fewer or more a device finds, as a share of the CPU's.

    One that is missing lets nothing pass, so a rounding that moves a pixel to a neighboring simplex
    shows far beyond its last bit.
    """
    images, _ = crf_input(2, CRF_SIZE)
    parameters = Parameters()
    found, expected = (bilateral_lattice(images.to(place), parameters) for place in (device, CPU))
    return {"vertices": abs(found.num_vertices / expected.num_vertices - 1)}


def _crf_differences(
    options: dict[str, Any], backend: Backend, batch: int, device: torch.device
) -> dict[str, float]:
    """Return how far the torch backend on a device is from a backend on the CPU."""
    images, probabilities = crf_input(batch, CRF_SIZE)
    expected = DenseCRF(**options, backend=backend)(images, probabilities)
    crf = DenseCRF(**options, backend="torch")
    return _apart(crf(images.to(device), probabilities.to(device)), expected)


def _from_the_device_differences(backend: Backend, device: torch.device) -> dict[str, float]:
    """Return how far a backend of the CPU is from itself where the tensors are on a device."""
    images, probabilities = crf_input(1, CRF_SIZE)
    crf = DenseCRF(backend=backend)
    found = crf(images[0].to(device), probabilities[0].to(device))
    if found.device.type != device.type:
        raise ValueError(f"the result is on {found.device}, expected {device}")
    return _apart(found[None], crf(images, probabilities))


def _apart(found: Tensor, expected: Tensor) -> dict[str, float]:
    found = found.cpu()
    others = (found.argmax(1) != expected.argmax(1)).double().mean().item()
    return {"probabilities": (found - expected).abs().max().item(), "other labels": others}
