"""Write lists of images to train on with labels, and of the rest: drawn, or by a published order.

Orders that are published as a pickle (Mittal et al.; CutMix, s4GAN) hold the positions of images in
somebody's list, of which the first few are the labeled ones.
"""

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_lit.cli.parser import Parser, UsageError
from deeplab_lit.data import DataError, SegmentationData
from deeplab_lit.data.id_lists import read_ids
from deeplab_lit.data.npy_files import read_pickled_array
from deeplab_lit.data.split import PartOfSplit
from deeplab_lit.prepare.label_maps import write_list
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.text import first_few, plural, say

CITYSCAPES = 2975  # images of its training split
UNSORTED = (
    f"{CITYSCAPES:,} positions are those of Cityscapes train, which ClassMix, DACS and s4GAN count "
    "in the order in which os.walk found the files on their machine, and no other need have it: "
    "they are these images only if --of is that very listing"
)


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("--config", action="config", help="Configuration of a run, of which --data counts.")
    parser.add_subclass_arguments(SegmentationData, "data", required=False)
    add(
        "--of",
        type=Path | None,
        default=None,
        help="List of all images, instead of --data and its training split.",
    )
    add(
        "--pickle",
        type=Path | None,
        default=None,
        help="Published order, a pickled array of positions in --of. Default: drawn by --seed.",
    )
    add(
        "--first",
        type=int | None,
        default=None,
        help="How many images to name: as many as the order begins with.",
    )
    add(
        "--fraction",
        type=str | None,
        default=None,
        help="The same as a share, like 1/16, rounded up, as in the lists of UniMatch.",
    )
    add(
        "--seed",
        type=int | None,
        default=None,
        help="Of the draw; 0 unless given. Of one seed, a smaller list is the beginning of a "
        "larger one.",
    )
    add("--out", type=Path, required=True, help="List to write, for --data.ids.")
    add(
        "--rest",
        type=Path | None,
        default=None,
        help="List of all others to write. --unlabeled_data.all_but OUT does without.",
    )


def write_id_lists(options: Any) -> None:
    """Write the lists, and say what they hold.

    Args:
        options: of `add_options`, with the data set built.

    Raises:
        UsageError: options are missing, or contradict each other.
        DataError: a list, an order or the data cannot be read, or they do not belong together.
    """
    data, of = options.data, options.of
    _refuse(options)
    if data is None:
        names, source = read_ids(of).names, str(of)
    else:
        names = list(data.images().ids)
        source = f"{type(data).__name__} {data.training_name()}"
    if options.pickle is None:
        seed = options.seed or 0
        # unlike that of newer generators, its stream stays the same in all versions of NumPy
        order, how = np.random.RandomState(seed).permutation(len(names)), f"drawn by seed {seed}"
    else:
        order, how = read_order(options.pickle, len(names), of), f"in the order of {options.pickle}"
    number = options.first if options.fraction is None else share(options.fraction, len(names))
    most = len(names) - (options.rest is not None)  # something must be left for the rest
    if not 1 <= number <= most:
        raise UsageError(
            f"{number:,} of the {plural(len(names), 'image')} of {source} to name, expected from 1 "
            f"up to {most:,}"
        )
    chosen, others = order[:number].tolist(), sorted(order[number:].tolist())
    write_list(options.out, [names[index] for index in chosen])
    print(f"{options.out}: {number:,} of the {plural(len(names), 'image')} of {source}, {how}")
    if options.rest is not None:
        write_list(options.rest, [names[index] for index in others])
        print(f"{options.rest}: the other {len(others):,}")
    if options.pickle is not None:
        print(
            f"Note: positions are lines of the list that they were made for; {source} must be that "
            "list, in its order. CutMix takes train_aug.txt of AdvSemiSeg (dataset/voc_list)"
        )
    if data is not None:
        say(missing_classes(data, chosen))


def share(fraction: str, number: int) -> int:
    """Return a share of a number, rounded up: 662 for "1/16" of 10,582.

    Raises:
        UsageError: it is no share.
    """
    try:  # no exponents, whose powers take forever
        part = Fraction(fraction if re.fullmatch(r"[\d./ ]{1,40}", fraction) else 0)
    except (ValueError, ZeroDivisionError):
        part = Fraction(0)
    if not 0 < part <= 1:
        raise UsageError(f"--fraction {fraction}: expected a share like 1/16 or 0.125")
    return math.ceil(part * number)


def read_order(path: Path, number: int, of: Path) -> np.ndarray:
    """Read a published order of images, (number,) of their positions from 0; nothing in it is run.

    Args:
        path: the pickle.
        number: of images.
        of: their list, for messages.

    Raises:
        DataError: it cannot be read, or is no order of so many images.
    """
    order = read_pickled_array(path)
    if (
        order.ndim != 1
        or order.dtype.kind not in "iu"
        or not np.array_equal(np.sort(order), np.arange(len(order)))
    ):
        raise DataError(
            f"{path}: an array {order.shape} of {order.dtype}, expected an order of images: each "
            "position from 0 up once"
        )
    if len(order) == CITYSCAPES:
        say(f"WARNING: {UNSORTED}.")
    if len(order) != number:
        raise DataError(
            f"{path} orders {plural(len(order), 'image')}, but {of} names {number:,}: give the "
            "list that it was made for (10,582 are PASCAL VOC's train_aug)"
        )
    return order


def missing_classes(data: SegmentationData, chosen: Sequence[int]) -> str:
    """Say which classes no image of a draw holds.

    Args:
        data: the data set; its labels are read.
        chosen: indices of the images in its training split.
    """
    try:
        part = PartOfSplit(data.selected(data.labeled(data.train_split)), chosen)
        with ThreadPoolExecutor() as pool:
            read = progress_bar(
                pool.map(lambda index: part.content(index, image=False), range(len(chosen))),
                desc="looking for classes",
                total=len(chosen),
                unit=" masks",
                leave=False,
                delay=1,
            )
            counts = sum((mask.indices[: len(data.classes)] > 0 for mask in read), 0)
    except DataError as error:
        return f"Note: which classes the images hold is not known: {error}"
    images = dict(zip(data.classes, np.asarray(counts).tolist(), strict=True))
    if lacking := [name for name, number in images.items() if not number]:
        return (
            f"WARNING: {plural(len(lacking), 'class')} in none of these images "
            f"({first_few(lacking)}): they cannot be learned from them"
        )
    rarest = min(images, key=lambda name: images[name])
    return f"Every class is in these images; the rarest, {rarest}, in {images[rarest]:,} of them"


def _refuse(options: Any) -> None:
    if (options.data is None) == (options.of is None):
        raise UsageError("expected either --data with its options, or --of FILE")
    if (options.first is None) == (options.fraction is None):
        raise UsageError("expected either --first NUMBER or --fraction SHARE, like 1/16")
    if options.pickle is not None and options.seed is not None:
        raise UsageError("--pickle is an order already: leave --seed out")
    if options.pickle is not None and options.of is None:
        raise UsageError(
            "--pickle holds positions in somebody's list, not in a data set that is sorted as "
            f"here: give that list as --of, instead of --data. {UNSORTED}"
        )
    if options.seed is not None and not 0 <= options.seed < 2**32:
        raise UsageError(f"--seed {options.seed}: expected 0…{2**32 - 1}")
    for path in filter(None, (options.out, options.rest)):
        if path.exists():
            raise UsageError(f"{path} exists already: give another name, or remove it")
    if options.out == options.rest:
        raise UsageError("--out and --rest are one file")
