"""Measure what a network costs: weights, multiply-adds, latency, memory.

Published tables mix three conventions. A multiply-add is one operation to fvcore and in most papers
(GMAC), two to `torch.utils.flop_counter` (GFLOP): both are printed. Frames a second are one over
the mean latency, or the mean of one over each latency: both are printed, too. A clock read before a
GPU is done measures nothing: here it is read after.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from statistics import mean, median, stdev
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

import deeplab_lit.data as data_sets
from deeplab_lit import load
from deeplab_lit.benchmark.meter import FLOAT32, device_in_words, peak_memory, seconds_of
from deeplab_lit.cli.parser import UsageError, configs, flags, read_config
from deeplab_lit.errors import UserError, refused_arguments
from deeplab_lit.network.cost import cost_of
from deeplab_lit.network.deeplab import DeepLabV2, default_settings
from deeplab_lit.network.half_precision import why_slow
from deeplab_lit.network.inference import device_of
from deeplab_lit.runs.folder import named_checkpoint
from deeplab_lit.runs.trained_on import DATA_SETS
from deeplab_lit.text import plural

WARM_UP = 3  # passes before the clock starts: libraries choose their algorithms, memory is taken
CITYSCAPES = 19  # classes


def network(
    size: tuple[PositiveInt, PositiveInt] = (512, 1024),
    ckpt_path: str | None = None,
    num_classes: PositiveInt | None = None,
    device: str = "auto",
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
        device: cpu, cuda, …; auto: the GPU where there is one.
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
        with refused_arguments():
            net = DeepLabV2(num_classes or CITYSCAPES, **network)
    measure(net.to(device_of(device)), size, precision, rounds)


def measure(net: DeepLabV2, size: Sequence[int], precision: str, rounds: int) -> None:
    """Print the cost of a network and of one image, counted and measured.

    Args:
        net: on the device to measure on.
        size: height and width of the image in pixels.
        precision: of autocast: float32, bfloat16 or float16.
        rounds: passes that are timed; 0: nothing is measured.
    """
    cost, device = cost_of(net, size), net.preprocess.mean.device
    rates = f" {list(net.atrous_rates)}" if net.atrous_rates else ""
    print(
        f"{net.backbone_name}, {net.head_name}{rates}, output stride {net.output_stride}, "
        f"{net.style}, scales {list(net.scales)}, {plural(net.num_classes, 'class')}\n"
        f"one image of {size[0]}×{size[1]}, height×width\n"
        f"  parameters     {cost.parameters:,}, of which {cost.learnable:,} are learnable\n"
        f"  multiply-adds  {_operations(cost.macs)}"
    )
    if cost.macs_with_aux is not None:
        print(f"  in training    {_operations(cost.macs_with_aux)}, with the auxiliary head")
    print("                 of convolutions and matrix products, by torch.utils.flop_counter")
    if not rounds:
        return
    dtype = getattr(torch, precision)
    if (sentence := why_slow(dtype, device, FLOAT32, trains=False)) is not None:
        print(f"WARNING: {sentence}")
    one_pass = _pass(net.eval(), size, precision)
    for _ in range(WARM_UP):
        one_pass()
    memory = peak_memory(one_pass, device)
    seconds = [seconds_of(one_pass).wall for _ in range(rounds)]
    is_cuda = device.type == "cuda"
    rates_per_second = [1 / duration for duration in seconds]
    print(
        f"  latency        {_spread([1000 * s for s in seconds])} ms, median "
        f"{1000 * median(seconds):.2f}\n"
        f"  frames/s       {1 / mean(seconds):.2f} as 1 / mean latency, "
        f"{_spread(rates_per_second)} as mean of 1 / latency\n"
        f"  memory         {_memory(net, memory, is_cuda=is_cuda)}\n"
        f"{plural(rounds, 'pass')} after {WARM_UP + 1} that are not timed, mean ± standard "
        "deviation; images on the device → logits at their size; "
        f"{precision}, {device_in_words(device)}"
    )


def _operations(macs: int) -> str:
    return f"{macs / 1e9:,.3f} GMAC = {2 * macs / 1e9:,.3f} GFLOP"


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{deviation}"


def _memory(net: DeepLabV2, beyond: float | None, *, is_cuda: bool) -> str:
    """Return the memory of weights and of a pass in words.

    Args:
        net: measured.
        beyond: bytes that a pass takes beyond those in use before it; None: unknown.
        is_cuda: whether they are those that torch took of a GPU.
    """
    tensors = [*net.parameters(), *net.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    text = f"{weights / 2**20:,.1f} MiB of weights, "
    if beyond is None:
        return text + "and what a pass takes is not known on this system"
    source = "torch.cuda.max_memory_allocated" if is_cuda else "resident memory of the process"
    return text + f"{beyond / 2**20:,.1f} MiB more at the peak of a pass ({source})"


def _pass(net: DeepLabV2, size: Sequence[int], precision: str) -> Callable[[], None]:
    """Return a function: one image of noise through the network, until the device is done."""
    device = net.preprocess.mean.device
    image = torch.randint(256, (1, 3, *size), dtype=torch.uint8).to(device)
    dtype = getattr(torch, precision)
    autocast: Callable[[], AbstractContextManager[Any]] = partial(
        torch.autocast, device.type, dtype, enabled=dtype != torch.float32
    )

    def one_pass() -> None:
        with torch.inference_mode(), autocast():
            net(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return one_pass


def spelled_out(argv: Sequence[str]) -> list[str]:
    """Return the options of this command with those of a training's configurations written out.

    `--size 512 1024` becomes one word, as the parser takes pairs. Options on the command line win.

    Args:
        argv: of `joined_configs`, without the name of the command.

    Raises:
        UsageError: a configuration says nothing about the network, or does not tell its classes.
        ConfigError: one of them cannot be read.
    """
    typed: list[str] = []
    for word in argv:
        if word.isdecimal() and typed and (typed[-1] == "--size" or "--size=[" in typed[-1]):
            before = typed.pop().partition("[")[2].rstrip("]")
            typed.append(f"--size=[{f'{before},{word}' if before else word}]")
        elif not word.startswith("--config="):
            typed.append(word)
    options: dict[str, Any] = {}
    for name in configs(argv):
        options |= _network_of(name, read_config(name))
    if options.get("num_classes", 0) is None and "--num_classes" not in flags(typed):
        raise UsageError(
            "the configuration does not tell how many classes its data have: give --num_classes"
        )
    return [f"--{key}={value}" for key, value in options.items() if value is not None] + typed


def _network_of(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration says of the network; its classes None: there are data, but which.

    Raises:
        UsageError: it says nothing.
    """
    model, data = config.get("model"), config.get("data")
    options = dict(model.get("init_args", model)) if isinstance(model, dict) else {}
    network = {key: value for key, value in options.items() if key in default_settings()}
    if data is not None:
        path = data.get("class_path") if isinstance(data, dict) else data
        classes = getattr(getattr(data_sets, DATA_SETS.get(str(path), ""), None), "classes", None)
        network["num_classes"] = len(classes) if isinstance(classes, dict) else None
    if not network:
        raise UsageError(f"--config {name}: it has neither a model nor data")
    return network
