"""Measure how fast images are scored and segmented, beside the plain loop that ports write."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from PIL import Image

from deeplab_lit import load
from deeplab_lit.benchmark.data import voc_split
from deeplab_lit.benchmark.loops import MIoU, plain_loop, predict, validate
from deeplab_lit.benchmark.meter import Seconds, device_in_words, seconds_of
from deeplab_lit.cli.screen import quieten
from deeplab_lit.crf import CRFError, DenseCRF
from deeplab_lit.data.check import spread
from deeplab_lit.data.file_split import FileSplit
from deeplab_lit.data.image import read_image, read_mask
from deeplab_lit.data.paths import Pair
from deeplab_lit.data.transforms import resized
from deeplab_lit.data.voc import VOC
from deeplab_lit.errors import UserError, refused_arguments
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.runs.folder import named_checkpoint
from deeplab_lit.text import plural

CLASSES = len(VOC.classes)
Refiners = tuple[DenseCRF | None, DenseCRF | None]  # of the plain loop, and ours


class Variant(NamedTuple):
    """A way to evaluate images.

    Attributes:
        name: of it.
        beside: name of the plain loop that it is compared with.
        run: does it, and returns what gives the mIoU.
    """

    name: str
    beside: str
    run: Callable[[], MIoU]


def evaluation(
    root: str,
    ckpt_path: str | None = None,
    num_images: PositiveInt = 4,
    size: tuple[PositiveInt, PositiveInt] | None = None,
    rounds: PositiveInt = 2,
    crf: bool = True,
    half: bool = True,
    minutes: PositiveFloat = 5.0,
    **network: Any,
) -> None:
    """Compare validate and predict, on the CPU, with the plain loop that ports write.

    Each measurement is printed as it is made, and the medians in the end, also where Ctrl-C or
    --minutes end it earlier.

    Args:
        root: PASCAL VOC 2012 (see data VOC); of its val split images are taken.
        ckpt_path: network of PASCAL VOC's 21 classes; "last": the best of the newest run in runs/.
            None: one with random weights.
        num_images: how many, spread over the split.
        size: height and width that they are brought to. None: they stay as they are.
        rounds: how often each way evaluates all of them, taking turns, after one image that is not
            measured.
        crf: compare with the CRF too: pydensecrf in the loop, ours beside the network.
        half: ours in bfloat16 too, channels last.
        minutes: after which nothing further is begun.
        network: of DeepLabV2.

    Raises:
        UserError: no data there, or a network of other classes.
    """
    end = perf_counter() + 60 * minutes
    quieten()
    with refused_arguments():
        net = load(named_checkpoint(ckpt_path)) if ckpt_path else DeepLabV2(CLASSES, **network)
    if net.num_classes != CLASSES:
        raise UserError(f"--ckpt_path {ckpt_path} has {net.num_classes} classes, not {CLASSES}")
    net.classes = dict(VOC.classes)
    net.eval()
    refiners = _refiners(crf=crf)
    with TemporaryDirectory() as folder:
        split = _chosen(voc_split(root, "val"), num_images, size, Path(folder))
        variants = [*_variants(net, split, Path(folder), refiners, half=half)]
        height, width = split.image(0).shape[:2]
        print(
            f"{plural(len(split.ids), 'image')} (the first of {width}×{height}), "
            f"{net.backbone_name}, {net.head_name}, scales {list(net.scales)}, "
            f"{device_in_words(torch.device('cpu'))}, torch {torch.__version__}",
            flush=True,
        )
        took: dict[str, list[Seconds]] = {variant.name: [] for variant in variants}
        miou: dict[str, float] = {}
        try:
            warm_up = FileSplit(split.pairs[:1], CLASSES)
            for variant in _variants(net, warm_up, Path(folder), refiners, half=half):
                if perf_counter() < end:
                    variant.run()
            for turn, variant in product(range(1, rounds + 1), variants):
                if perf_counter() > end:
                    print("--minutes are over")
                    break
                seconds, miou[variant.name] = _measured(variant)
                took[variant.name].append(seconds)
                print(f"  round {turn}: {variant.name}, {seconds.wall:.2f} s", flush=True)
        finally:
            for line in _in_words(variants, took, miou, len(split.ids)):
                print(line, flush=True)


def _measured(variant: Variant) -> tuple[Seconds, float]:
    """Return how long a way takes, and the mIoU of what it makes."""
    scores: list[MIoU] = []
    seconds = seconds_of(lambda: scores.append(variant.run()))
    return seconds, scores[0]()


def _in_words(
    variants: Sequence[Variant],
    took: Mapping[str, Sequence[Seconds]],
    miou: Mapping[str, float],
    number: int,
) -> Iterator[str]:
    """Yield a table of the ways that were measured.

    Args:
        variants: all of them.
        took: by name, seconds of each round.
        miou: by name, in 0…1.
        number: of images.
    """
    yield "medians and their ranges, each beside the plain loop of the same round"
    for variant in variants:
        if not took[variant.name]:
            yield f"  {variant.name:<34} not measured"
            continue
        wall, processor = ([*values] for values in zip(*took[variant.name], strict=True))
        pairs = zip(took[variant.beside], wall, strict=False)  # a last round may lack ours
        ratios = [theirs.wall / ours for theirs, ours in pairs]
        yield (
            f"  {variant.name:<34} {median(ratios):5.2f}× as fast "
            f"({min(ratios):.2f}…{max(ratios):.2f})  {number / median(wall):7.2f} images/s"
            f"  {median(processor) / number:6.2f} s of the processor an image"
            f"  mIoU {100 * miou[variant.name]:.2f} %  {plural(len(wall), 'round')}"
        )


def _refiners(*, crf: bool) -> dict[str, Refiners]:
    """Return, by the words that say so, without which and with which CRF is evaluated."""
    refiners: dict[str, Refiners] = {"": (None, None)}
    if crf:
        try:
            refiners[" + CRF"] = (DenseCRF(backend="pydensecrf"), DenseCRF())
        except CRFError as error:  # not installed
            print(f"The CRF is left out: {error}")
    return refiners


def _variants(
    net: DeepLabV2, split: FileSplit, folder: Path, refiners: dict[str, Refiners], *, half: bool
) -> Iterator[Variant]:
    """Yield what is compared: each plain loop, then ours beside it."""
    channels_last = deepcopy(net)
    channels_last.use_channels_last()
    for words, (theirs, ours) in refiners.items():
        loop = f"plain loop{' + pydensecrf' * bool(words)}"
        yield Variant(loop, loop, partial(plain_loop, net, split, theirs))
        for is_half in (False, True)[: 1 + half]:
            ending, used = (", bfloat16", channels_last) if is_half else ("", net)
            scoring = partial(validate, used, split, ours, half=is_half)
            yield Variant(f"validate{words}{ending}", loop, scoring)
            segmenting = partial(predict, used, split, ours, folder / "masks", half=is_half)
            yield Variant(f"predict{words}{ending}", loop, segmenting)


def _chosen(split: FileSplit, number: int, size: tuple[int, int] | None, folder: Path) -> FileSplit:
    """Return some images of a split, brought to a size in files of a folder where one is given."""
    pairs = [split.pairs[i] for i in spread(len(split.pairs), number)]
    if size is not None:
        pairs = [_resized(pair, size, folder) for pair in pairs]
    return FileSplit(pairs, CLASSES)


def _resized(pair: Pair, size: tuple[int, int], folder: Path) -> Pair:
    """Write an image and its mask at a size (height, width), losslessly."""
    small = Pair(pair.id, folder / f"{pair.id}-image.png", folder / f"{pair.id}-mask.png")
    Image.fromarray(resized(read_image(pair.image), size, "bicubic")).save(small.image)
    Image.fromarray(resized(read_mask(pair.mask), size, "nearest")).save(small.mask)
    return small
