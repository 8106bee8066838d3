"""Measure a training step under each switch beside the same network as ports write it."""

from copy import deepcopy
from typing import Any, Literal, NamedTuple

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor
from torch.optim import SGD

from deeplab_lit.benchmark.meter import FLOAT32, device_in_words
from deeplab_lit.benchmark.plain_port import PlainDeepLab, plain_loss, port_of, why_no_port
from deeplab_lit.benchmark.turns import Step, compare, in_words
from deeplab_lit.errors import refused_arguments
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.half_precision import why_slow
from deeplab_lit.network.inference import device_of
from deeplab_lit.text import plural
from deeplab_lit.training.loss import deeplab_loss
from deeplab_lit.training.optimizer import build_optimizer, parameter_groups

Variant = Literal[
    "plain", "channels_last", "amp", "amp+channels_last", "recompute", "compile", "all"
]
LR, MOMENTUM, DECAY, HEAD_LR_MULT = 1e-6, 0.9, 5e-4, 10  # noise is to move nothing


class Switches(NamedTuple):
    """Say what is switched on in a training step of ours."""

    amp: bool = False
    channels_last: bool = False
    compile: bool = False
    recompute: bool = False


SWITCHES: dict[Variant, Switches] = {
    "plain": Switches(),
    "channels_last": Switches(channels_last=True),
    "amp": Switches(amp=True),
    "amp+channels_last": Switches(amp=True, channels_last=True),
    "recompute": Switches(recompute=True),
    "compile": Switches(compile=True),  # which takes long: behind the others
    "all": Switches(amp=True, channels_last=True, compile=True, recompute=True),
}


def step(
    batch_size: PositiveInt = 2,
    crop_size: PositiveInt = 321,
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16",
    device: str = "auto",
    rounds: PositiveInt = 5,
    minutes: PositiveFloat = 5.0,
    variants: list[Variant] | None = None,
    **network: Any,
) -> None:
    """Compare time and memory of a training step, under each switch, with a plain port's.

    Args:
        batch_size: images in a step.
        crop_size: their side in pixels.
        precision: of autocast in the variants with amp; float32 leaves these out.
        device: cpu, cuda, …; auto: the GPU where there is one.
        rounds: steps of each variant that are measured, after one that is not.
        minutes: after which no further step of the first round, and no further round, is begun.
        variants: what is measured; recompute is gradient_checkpointing. None: all of them.
        network: of DeepLabV2, for all. The classes are PASCAL VOC's 21.
    """
    with refused_arguments():
        net = DeepLabV2(21, channels_last=False, gradient_checkpointing=False, **network)
    net = net.to(device_of(device))
    torch.manual_seed(0)
    batch = Batch.of_noise(net, batch_size, crop_size)
    chosen = {name: SWITCHES[name] for name in variants or SWITCHES}
    half = getattr(torch, precision)
    if half == torch.float32:
        chosen = {name: switches for name, switches in chosen.items() if not switches.amp}
    where = batch.mask.device
    print(
        f"{plural(batch_size, 'image')} of {crop_size}×{crop_size}, {net.backbone_name}, "
        f"{net.head_name} {list(net.atrous_rates)}, scales {list(net.scales)}, "
        f"{device_in_words(where)}, torch {torch.__version__}"
    )
    if (why_not := why_no_port(net)) is None:
        steps = {"plain port, float32": port_step(port_of(net), batch)}
    else:
        print(f"There is no plain port of {why_not}: the comparison is with ours without switches.")
        steps = {"ours, float32": our_step(deepcopy(net), Switches(), half, batch)}
        chosen.pop("plain", None)
    uses_half = any(switches.amp for switches in chosen.values())
    if uses_half and (sentence := why_slow(half, where, FLOAT32)) is not None:
        print(f"WARNING: {sentence}")
        chosen = dict(sorted(chosen.items(), key=lambda pair: pair[1].amp))  # may take the minutes
    for name, switches in chosen.items():
        words = name.replace("amp", precision) if name != "all" else f"{precision} and all others"
        steps[f"ours, {words}"] = our_step(deepcopy(net), switches, half, batch)
    for line in in_words(compare(steps, where, rounds, 60 * minutes), batch_size):
        print(line)


class Batch(NamedTuple):
    """Hold the noise that a step is trained on.

    Attributes:
        images: (B,3,H,W) uint8 RGB, as the loader hands it over.
        normalized: likewise, float32, as a port's loader does.
        mask: (B,H,W) uint8.
    """

    images: Tensor
    normalized: Tensor
    mask: Tensor

    @classmethod
    def of_noise(cls, net: DeepLabV2, batch_size: int, side: int) -> "Batch":
        """Return noise on the network's device."""
        device = net.preprocess.mean.device
        mask = torch.randint(net.num_classes, (batch_size, side, side), dtype=torch.uint8)
        images = torch.randint(256, (batch_size, side, side, 3), dtype=torch.uint8)
        images = images.to(device).permute(0, 3, 1, 2)
        return cls(images, net.preprocess(images).contiguous(), mask.to(device))


def port_step(port: PlainDeepLab, batch: Batch) -> Step:
    """Return the step of a plain port."""
    heads = list(port.aspp.parameters())
    known = {id(p) for p in heads}
    others = [p for p in port.parameters() if p.requires_grad and id(p) not in known]
    groups = [
        {"params": others, "lr": LR},
        {"params": [p for p in heads if p.ndim > 1], "lr": HEAD_LR_MULT * LR},
        {"params": [p for p in heads if p.ndim == 1], "lr": 2 * HEAD_LR_MULT * LR},
    ]
    optimizer = SGD(groups, lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    mask = batch.mask.long()

    def one_step() -> None:
        loss = plain_loss(port(batch.normalized), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _wait_for(mask.device)

    return Step(one_step)


def our_step(net: DeepLabV2, switches: Switches, half: torch.dtype, batch: Batch) -> Step:
    """Return the step of a network of ours.

    Args:
        net: put under the switches in place.
        switches: which.
        half: precision of autocast, where that is switched on.
        batch: trained on.
    """
    device = batch.mask.device
    if switches.channels_last:
        net.use_channels_last()
    net.backbone.gradient_checkpointing = switches.recompute
    if switches.compile:
        net.compile()
    net.train()
    groups = parameter_groups(net, lr=LR, weight_decay=DECAY, head_lr_mult=HEAD_LR_MULT)
    optimizer = build_optimizer(groups, momentum=MOMENTUM)

    def one_step() -> None:
        with torch.autocast(device.type, half, enabled=switches.amp):
            logits = net.logits(batch.images)
        loss = deeplab_loss(logits, batch.mask, align_corners=net.align_corners)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _wait_for(device)

    return Step(one_step, compiles=switches.compile)


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
