"""Compare what a device computes with the CPU: what a comparison is, and that of networks.

Networks are compared with float64 on the CPU, so that the CPU's own float32 can be looked at in the
same way. Float32 means float32: TF32 is off.

Letters: B batch · C classes · H×W image.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from deeplab_lit.network.backbone import TINY, FrozenBatchNorm2d
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.training.loss import deeplab_loss
from deeplab_lit.types import VOID

CLASSES = 7
BATCH, HEIGHT, WIDTH = 4, 65, 81
SMALL: dict[str, Any] = {"backbone": "resnet10_quarter", "atrous_rates": (2, 4)}
NETWORKS: dict[str, dict[str, Any]] = {  # by name; what is left out is DeepLabV2's default
    "resnet10_quarter": SMALL,
    "resnet6_half": {**SMALL, "backbone": "resnet6_half"},
    "trained normalization": {**SMALL, "norm": "batch"},
    "frozen affine": {**SMALL, "norm": "frozen_affine"},
    "auxiliary head": {**SMALL, "aux_head": True},
    "head largefov": {**SMALL, "head": "largefov", "atrous_rates": (3,)},
    "head conv1x1": {**SMALL, "head": "conv1x1", "atrous_rates": ()},
    "head aspp_concat": {**SMALL, "head": "aspp_concat"},
    "output stride 16": {**SMALL, "output_stride": 16, "scales": (1.0,)},
    "output stride 32": {**SMALL, "output_stride": 32, "scales": (1.0,)},
    "corners not aligned": {**SMALL, "align_corners": False},
    "resnet18": {"backbone": "resnet18"},
    "resnet34": {"backbone": "resnet34", "output_stride": 16},
    "resnet50 caffe": {"backbone": "resnet50", "style": "caffe"},
    "resnet101": {"backbone": "resnet101"},
    "resnet101 caffe, auxiliary head": {"style": "caffe", "aux_head": True},
    "resnet152": {"backbone": "resnet152", "output_stride": 32, "scales": (1.0,)},
    "vgg16": {"backbone": "vgg16"},
    "vgg16 caffe, largefov": {
        "backbone": "vgg16", "style": "caffe", "head": "largefov", "atrous_rates": (12,),
    },
}  # fmt: skip
SWITCHED = ("resnet10_quarter", "trained normalization", "resnet101 caffe, auxiliary head", "vgg16")
ON_A_CPU = ("trained normalization", "auxiliary head", "head aspp_concat")  # small and unlike
# float32 on the CPU: 8e-7 and 1e-6, of bottlenecks 2e-6 and 6e-3, for gradients meet at many ReLUs
TOLERANCES = {"logits": 1e-4, "loss": 1e-4, "statistics": 1e-4, "gradients": 3e-2}
PRECISIONS = {  # on the CPU, bfloat16: 0.05 and 0.46; float16, of small networks: 0.002 and 0.04
    "bfloat16": {"logits": 0.15, "gradients": 1.0},
    "float16": {"logits": 0.03, "gradients": 0.3},
}


class Check(NamedTuple):
    """A comparison of a device with the CPU.

    Attributes:
        name: what is compared.
        differences: of a device: how far each part of the result is from the CPU's, from 0 up.
        tolerances: the largest difference of each part that passes.
        is_small: takes about a second or less on one thread of a CPU.
    """

    name: str
    differences: Callable[[torch.device], dict[str, float]]
    tolerances: Mapping[str, float]
    is_small: bool = True

    def failures(self, differences: Mapping[str, float]) -> list[str]:
        """Return what is not within the tolerance, a phrase each; NaN never is."""
        return [
            f"{part} {differences[part]:.1e}, at most {most:.0e} expected"
            for part, most in self.tolerances.items()
            if not differences[part] <= most
        ]


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 in float32 on a GPU, not in TF32; put the setting back at the end."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution


def distance(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖ in float64; where 0 is expected, ‖found‖.

    Raises:
        ValueError: other shapes.
    """
    if found.shape != expected.shape:
        raise ValueError(f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    norm = expected.norm().item()
    return (found - expected).norm().item() / (norm or 1.0)


def images_and_mask() -> tuple[Tensor, Tensor]:
    """Return blotches of colors (B,3,H,W) uint8, and labels (B,H,W) uint8 with some void pixels."""
    random = torch.Generator().manual_seed(0)
    coarse = 255 * torch.rand(BATCH, 3, HEIGHT // 8 + 1, WIDTH // 8 + 1, generator=random)
    images = nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear").byte()
    mask = torch.randint(CLASSES, (BATCH, HEIGHT // 8 + 1, WIDTH // 8 + 1), generator=random)
    mask = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :HEIGHT, :WIDTH].byte()
    mask[:, :9] = VOID
    return images.contiguous(memory_format=torch.channels_last), mask


def network(**options: Any) -> DeepLabV2:
    """Return a network with random weights, without dropout, in training mode.

    Frozen normalization gets the statistics of `images_and_mask`, as if it had been trained, and
    the branch of a residual block a fifth of its shortcut's scale: at the same scale the gradients
    of 101 layers would be chaos, in which every rounding counts.
    """
    torch.manual_seed(0)
    net = DeepLabV2(CLASSES, **options)
    for module in net.modules():
        if isinstance(module, nn.Dropout):  # no two devices draw the same numbers
            module.p = 0.0
        if isinstance(module, BasicBlock | Bottleneck):
            last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
            nn.init.constant_(last.weight, 0.2)
    frozen = [module for module in net.modules() if isinstance(module, FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(_take_statistics) for norm in frozen]
    with torch.no_grad():
        net.eval()(images_and_mask()[0], (1.0,))
    for hook in hooks:
        hook.remove()
    return net.train()


def _take_statistics(norm: nn.Module, arguments: tuple[Tensor]) -> None:
    (x,) = arguments
    norm.get_buffer("running_mean").copy_(x.mean((0, 2, 3)))
    norm.get_buffer("running_var").copy_(x.var((0, 2, 3)))


def step_of(
    net: DeepLabV2, device: torch.device, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> dict[str, Tensor]:
    """Return the logits, the loss, all gradients and the statistics of a step of training.

    Args:
        net: its gradients and statistics change; on the device.
        device: where it is.
        dtype: of autocast.
        scale: of the loss, in the backward pass alone, as a gradient scaler has it.
    """
    images, mask = (tensor.to(device) for tensor in images_and_mask())
    align = net.align_corners
    with torch.autocast(device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16)):
        levels = [net.logits(images)] if net.aux_head is None else net.logits_and_aux(images)
    losses = [deeplab_loss(logits, mask, align_corners=align) for logits in levels]
    loss = torch.stack(losses).sum()
    (scale * loss).backward()
    gradients = [p.grad.flatten() / scale for p in net.parameters() if p.grad is not None]
    statistics = [b.double().flatten() for name, b in net.named_buffers() if "running" in name]
    return {
        "logits": torch.cat([logits.fused.flatten() for logits in levels]),
        "loss": loss,
        "gradients": torch.cat(gradients),
        "statistics": torch.cat([torch.ones(1, device=device), *statistics]),
    }


def network_checks() -> Iterator[Check]:
    """Yield the checks of all networks, and of some under every switch and precision."""
    for name in NETWORKS:
        differences = partial(_network_differences, name)
        yield Check(f"network {name}", differences, TOLERANCES, name in ON_A_CPU)
    for name in SWITCHED:
        is_tiny = _is_tiny(NETWORKS[name])
        for switch in ("channels_last", "gradient_checkpointing", "compile"):
            differences = partial(_network_differences, name, switch=switch)
            is_small = name in ON_A_CPU and switch != "compile"
            if is_tiny or switch != "compile":  # of larger networks it takes minutes
                yield Check(f"network {name}, {switch}", differences, TOLERANCES, is_small)
        for precision, tolerances in PRECISIONS.items():
            differences = partial(_network_differences, name, dtype=getattr(torch, precision))
            is_small = name in ON_A_CPU and precision != "float16"  # which is slow there
            yield Check(f"network {name}, {precision}", differences, tolerances, is_small)


def _is_tiny(options: Mapping[str, Any]) -> bool:
    return options.get("backbone") in TINY


def _network_differences(
    name: str,
    device: torch.device,
    *,
    switch: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Return how far a step of training is from that of float64 on the CPU."""
    net = network(**NETWORKS[name])
    if switch == "channels_last":
        net.use_channels_last()
    elif switch == "gradient_checkpointing":
        net.backbone.gradient_checkpointing = True
    elif switch == "compile":
        net.compile()
    scale = 1024.0 if dtype == torch.float16 else 1.0
    with exact_float32():
        found = step_of(net.to(device), device, dtype, scale)
    return {part: distance(found[part], values) for part, values in _expected(name).items()}


@lru_cache(maxsize=len(SWITCHED))
def _expected(name: str) -> dict[str, Tensor]:
    cpu = torch.device("cpu")
    return {k: v.detach() for k, v in step_of(network(**NETWORKS[name]).double(), cpu).items()}
