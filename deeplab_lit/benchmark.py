"""python -m deeplab_lit.benchmark: measure speed beside a baseline; see --help.

The variants take turns within one run, so that a busy machine slows all of them alike; medians are
compared.
"""

import sys
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from jsonargparse import auto_cli

from deeplab_lit.data.benchmark import compare_pipelines
from deeplab_lit.errors import plain_errors
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.training.benchmark import compare_steps


def step(
    batch_size: int = 2,
    crop_size: int = 321,
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16",
    device: str = "cpu",
    rounds: int = 5,
    compile: bool = False,
    channels_last: bool = True,
    gradient_checkpointing: bool = False,
    **network: Any,
) -> None:
    """Time and memory of a training step, beside float32 without any of the options.

    Args:
        batch_size: images in a step.
        crop_size: their side in pixels.
        precision: of autocast.
        device: cpu, cuda, …
        rounds: steps of each variant that are measured, after one that is not.
        compile: see DeepLabModule.
        channels_last: see DeepLabV2.
        gradient_checkpointing: see DeepLabV2.
        network: of DeepLabV2, for both. The classes are PASCAL VOC's 21.
    """
    plain = DeepLabV2(21, **network).to(device)
    variant = deepcopy(plain)
    names = [precision]
    if channels_last:
        names.append("channels_last")
        variant.memory_format = torch.channels_last
        variant.to(memory_format=torch.channels_last)
    if gradient_checkpointing:
        names.append("gradient_checkpointing")
        variant.backbone.gradient_checkpointing = True
    if compile:
        names.append("compile")
        variant.compile()
    compare_steps(
        plain,
        variant,
        name=" ".join(names),
        precision=precision,
        batch_size=batch_size,
        crop_size=crop_size,
        rounds=rounds,
    )


def data(root: str, crop_size: int = 321, rounds: int = 5) -> None:
    """Training samples a second of one core, beside the usual OpenCV pipeline.

    Args:
        root: PASCAL VOC 2012 (see data VOC); its train split is read.
        crop_size: side of the crop in pixels.
        rounds: passes over the split of each pipeline that are measured, after one that is not.
    """
    compare_pipelines(root, crop_size, rounds)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    with plain_errors():
        auto_cli(
            [step, data], args=args, as_positional=False, prog="python -m deeplab_lit.benchmark"
        )


if __name__ == "__main__":
    sys.exit(main())
