"""python -m deeplab_lit.benchmark: measure speed beside a baseline; see --help.

The variants take turns within one run, so that a busy machine slows all of them alike; medians are
compared.
"""

import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from jsonargparse import auto_cli, auto_parser
from jsonargparse.typing import NonNegativeInt, PositiveInt

from deeplab_lit import load
from deeplab_lit.benchmark.crf import (
    SETTINGS,
    Samples,
    compare_backends,
    compare_pools,
    even_size,
    probabilities,
)
from deeplab_lit.benchmark.network import measure, spelled_out
from deeplab_lit.benchmark.startup import compare_starts
from deeplab_lit.benchmark.training import compare_pipelines, compare_steps
from deeplab_lit.cli.parser import Parser, joined_configs, parse
from deeplab_lit.data.image import read_image
from deeplab_lit.errors import UserError, plain_errors
from deeplab_lit.network.deeplab import DeepLabV2, default_settings
from deeplab_lit.runs.folder import named_checkpoint
from deeplab_lit.segment.find_images import find_images
from deeplab_lit.text import plural

CITYSCAPES = 19  # classes


def step(
    batch_size: PositiveInt = 2,
    crop_size: PositiveInt = 321,
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16",
    device: str = "cpu",
    rounds: PositiveInt = 5,
    compile: bool = False,
    channels_last: bool = True,
    gradient_checkpointing: bool = False,
    **network: Any,
) -> None:
    """Compare time and memory of a training step with float32 without any of the options.

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
    names: list[str] = [precision]
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


def data(root: str, crop_size: PositiveInt = 321, rounds: PositiveInt = 5) -> None:
    """Compare training samples a second of one core with those of the usual OpenCV pipeline.

    Args:
        root: PASCAL VOC 2012 (see data VOC); its train split is read.
        crop_size: side of the crop in pixels.
        rounds: passes over the split of each pipeline that are measured, after one that is not.
    """
    compare_pipelines(root, crop_size, rounds)


def crf(
    images: str,
    ckpt_path: str | None = None,
    num_images: PositiveInt = 20,
    num_classes: PositiveInt = 21,
    threads: PositiveInt = 1,
    rounds: PositiveInt = 1,
    whole_set: bool = False,
) -> None:
    """Compare the CRF's backends with pydensecrf, on the same images at three settings.

    Args:
        images: folder of photographs (searched through), spread over which some are taken.
        ckpt_path: network whose probabilities are refined; "last": the best of the newest run in
            runs/. None: smooth noise.
        num_images: how many.
        num_classes: of the noise.
        threads: of each call; pydensecrf always has one.
        rounds: how often every image is refined, after one that is not measured.
        whole_set: time the images as one set instead: `threads` images at a time, each on one
            thread, against pydensecrf in as many processes.
    """
    files = sorted(find_images([images], leave_out=Path("/nowhere")).values())
    pictures = [read_image(path) for path in files[:: max(len(files) // num_images, 1)]]
    pictures = [even_size(image) for image in pictures[:num_images]]
    net = load(named_checkpoint(ckpt_path)) if ckpt_path else None
    scores = [probabilities(image, net, num_classes) for image in pictures]
    numbers = {"image": len(pictures), "class": len(scores[0]), "thread": threads, "round": rounds}
    print(", ".join(plural(number, noun) for noun, number in numbers.items()))
    if whole_set:
        _crf_whole_set([*zip(pictures, scores, strict=True)], threads, rounds)
        return
    for row in compare_backends(pictures, scores, SETTINGS, threads, rounds):
        print(
            f"  {row.setting:<16} {row.backend:<10} {row.milliseconds:7.0f} ms an image "
            f"{row.ratio:5.2f}× as fast ({min(row.ratios):.2f}…{max(row.ratios):.2f})   "
            f"{row.vertices_per_pixel:.2f} vertices a pixel   "
            f"max|dQ| {row.max_difference:.0e}, labels equal {row.label_agreement:.5%}"
        )


def _crf_whole_set(samples: Samples, workers: int, rounds: int) -> None:
    for setting, options in SETTINGS.items():
        for row in compare_pools(samples, options, workers, rounds):
            print(
                f"  {setting:<16} {row.backend:<10} "
                f"{1000 * median(row.seconds) / len(samples):7.0f} ms an image "
                f"{row.ratio:5.2f}× the throughput ({min(row.ratios):.2f}…{max(row.ratios):.2f})"
            )


def network(
    size: tuple[PositiveInt, PositiveInt] = (512, 1024),
    ckpt_path: str | None = None,
    num_classes: PositiveInt | None = None,
    device: str | None = None,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    rounds: NonNegativeInt = 10,
    **network: Any,
) -> None:
    """Count parameters and multiply-adds of a network; measure its latency and memory.

    `--config FILE` takes a training's configuration: what it says of the network.

    Args:
        size: height and width of the image.
        ckpt_path: a network of a weight file; "last": the best of the newest run in runs/.
        num_classes: of another network; None: Cityscapes' 19.
        device: cpu, cuda, …; None: the GPU where there is one.
        precision: of autocast.
        rounds: passes that are timed; 0: nothing is measured, which takes no time.
        network: of DeepLabV2.
    """
    if ckpt_path:
        defaults = {"num_classes": None, **default_settings()}
        options = {"num_classes": num_classes, **network}
        if typed := next((key for key, value in options.items() if value != defaults[key]), None):
            raise UserError(
                f"--ckpt_path {ckpt_path} says what the network is: leave out --{typed}"
            )
        net = load(named_checkpoint(ckpt_path))
    else:
        net = DeepLabV2(num_classes or CITYSCAPES, **network)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    measure(net.to(device), size, precision, rounds)


def startup(rounds: PositiveInt = 5) -> None:
    """Compare the start of commands with the import of torch, and fit's with Lightning's.

    Args:
        rounds: starts of each that are measured, after one that is not.
    """
    compare_starts(rounds)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    with plain_errors():
        argv = joined_configs(sys.argv[1:] if args is None else args)
        about: dict[str, Any] = {
            "as_positional": False,
            "prog": "python -m deeplab_lit.benchmark",
            "parser_class": Parser,
        }
        if argv[:1] == ["network"]:
            argv = ["network", *spelled_out(argv[1:])]
        commands = {"step": step, "data": data, "crf": crf, "network": network}
        commands["startup"] = startup
        functions: list[Any] = [*commands.values()]
        parse(auto_parser(functions, **about), argv, commands=commands)  # says what is wrong
        auto_cli(functions, args=argv, **about)


if __name__ == "__main__":
    main()
