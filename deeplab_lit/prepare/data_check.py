"""The complete check of a data set: every file of the splits that a configuration names.

Letters: C classes.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from PIL import Image, ImageDraw, ImageFont

from deeplab_lit import __version__
from deeplab_lit.atomic import atomic_write
from deeplab_lit.data import Images, SegmentationData
from deeplab_lit.data.check import Summary, summarize, table
from deeplab_lit.data.class_weights import Rule, write_class_weights
from deeplab_lit.data.image import DataError, MissingFiles
from deeplab_lit.data.split import Split
from deeplab_lit.loading.views import WithoutLabels, class_table, refuse_other_indices
from deeplab_lit.scoring.mask_quality import quality_of
from deeplab_lit.text import plural, say
from deeplab_lit.types import Classes

BAR, ROWS, LENGTH = 11, 50, 260  # height of a bar, classes in a column, length of the longest bar
LEAST = 1e-5  # share at which a bar has no length: the scale is logarithmic


def check(
    data: SegmentationData,
    plot: str | None,
    num_workers: int,
    val: SegmentationData | None = None,
    unlabeled: SegmentationData | None = None,
    weights: str | None = None,
) -> int:
    """Read every image and mask; print a table and all problems, and draw the table.

    Args:
        data: the data set with its splits.
        plot: picture file to write. None: data_check/<data set>.png.
        num_workers: threads that read.
        val: the data set to validate on. None: `data`.
        unlabeled: a data set of which images alone are used, with the masks of its `mask_dir` if it
            has one. None: there is none.
        weights: file to write with the weights of the classes that follow from the training split
            (`data/class_weights.py`), unless something is wrong. None: none.

    Returns:
        The exit code: 0, or 1 where something is wrong.
    """
    if weights is not None and Path(weights).expanduser().is_dir():
        raise DataError(f"--weights {weights} is a folder, expected the name of a file to write")
    name = type(data).__name__
    scored = data if val is None else val
    prefix = "" if val is None else "val_data: "
    validation = f"{prefix}{type(scored).__name__} {scored.val_split}"
    training = f"{name} {data.training_name()}"
    if data.mask_dir:
        training += f", masks of {data.mask_dir}"
    splits: dict[str, Callable[[], Split]] = {
        training: data.training,
        validation: scored.validation,
    }
    others, has_masks = "", unlabeled is not None and unlabeled.mask_dir is not None
    if unlabeled is not None:
        if isinstance(unlabeled, Images):
            unlabeled = unlabeled.of_classes(data.classes)
        others = f"unlabeled_data: {type(unlabeled).__name__}"
        others += f", masks of {unlabeled.mask_dir}" if has_masks else ""
        splits[others] = partial(_unlabeled_split, unlabeled, data.classes)
    num_classes = {training: len(data.classes), validation: len(scored.classes)}
    num_classes[others] = len(data.classes) if has_masks else 0
    problems: list[str] = []
    by_title: dict[str, Summary] = {}
    for title in splits:
        try:
            split = splits[title]()
        except MissingFiles as error:
            problems += [f"{file} is missing" for file in error.files]
            problems[-1] += f". {error.hint}" if error.hint else ""
            continue
        except DataError as error:
            problems.append(str(error))
            continue
        summary = summarize(split, title, num_classes[title], num_workers)
        problems += summary.problems
        by_title[title] = summary
    if images := by_title.pop(others, None):
        print(f"{others}: {plural(images.number, 'image')}")
    if val is None:
        findings = data.findings(by_title.get(training), by_title.get(validation))
    else:
        findings = data.findings(by_title.get(training), None)
        findings += val.findings(None, by_title.get(validation))
        try:
            class_table(val, data.classes)
        except DataError as error:
            problems.append(str(error))
            by_title.pop(validation, None)  # its classes have no place in the table
        else:
            if summary_of_val := by_title.get(validation):
                order = [list(val.classes).index(name) for name in data.classes]
                by_title[validation] = replace(
                    summary_of_val,
                    pixels=summary_of_val.pixels[order],
                    images=summary_of_val.images[order],
                    image_pixels=summary_of_val.image_pixels[order],
                )
    if images and unlabeled and has_masks:
        findings += unlabeled.findings(images, None)
    summaries = list(by_title.values())
    problems += [finding.sentence for finding in findings if finding.proved]
    suspicions = [finding.sentence for finding in findings if not finding.proved]
    if summaries:
        print(table(summaries, list(data.classes)))
        pseudo_labeled = {training: data, others: unlabeled if has_masks else None}
        for title, part in pseudo_labeled.items():
            masks = images if title == others else by_title.get(title)
            if masks is None or part is None or part.mask_dir is None or problems:
                continue
            if quality := quality_of(part, masks, "full", num_workers):
                print(f"\n{title}\n{quality.in_words()}\n")
        label = data.label("").rstrip(":").replace("/", "-")  # Folder-mine
        plot = plot or f"data_check/{label}.png"
        with atomic_write(Path(plot).expanduser()) as temporary:
            class_plot(summaries, data.classes).save(temporary, format="PNG")
        say(f"class frequencies drawn in {plot}")
    if len(summaries) == 2 and (both := data.shared(data.training(), scored)):
        suspicions.insert(
            0, f"{plural(both, 'image')} {'is' if both == 1 else 'are'} in both splits"
        )
    for suspicion in suspicions:
        say(f"WARNING: {suspicion}")
    for problem in problems:
        print(problem, file=sys.stderr)
    if weights is not None and not problems:
        write_class_weights(
            Path(weights).expanduser(),
            by_title[training],
            list(data.classes),
            data=data.training_label(),
            masks=None if data.mask_dir is None else str(data.mask_dir),
            version=__version__,
        )
        print(
            f"weights of the classes written to {weights}: train with --model.loss ClassWeighted "
            f"--model.loss.file {weights} --model.loss.rule {' or '.join(get_args(Rule))}"
        )
    if problems:
        missing = "" if weights is None else f"; {weights} is not written"
        print(f"error: {plural(len(problems), 'problem')}{most_frequent(problems)}{missing}")
    elif suspicions:
        warnings = plural(len(suspicions), "warning")
        print(f"{name}: nothing is wrong with the files; see the {warnings} above")
    else:
        print(f"{name}: nothing is wrong")
    return 1 if problems else 0


def most_frequent(problems: Sequence[str]) -> str:
    """Return what ails most files, as the end of a sentence; "" where no more than three share it.

    Args:
        problems: sentences like "a.png: mask value 11, which is no class; the mask holds …".
    """
    causes = Counter(re.split(r"; |\. ", text.partition(": ")[2])[0] for text in problems)
    cause, number = causes.most_common(1)[0]
    return f"; most frequent ({number:,}): {cause}" if cause and number > 3 else ""


def _unlabeled_split(unlabeled: SegmentationData, classes: Classes) -> Split:
    """Return the unlabeled images, with the masks of `mask_dir` or with void ones.

    Raises:
        DataError: images or masks are missing, or masks are of other classes than are trained.
    """
    if unlabeled.mask_dir is None:
        return WithoutLabels(unlabeled.images())
    refuse_other_indices(unlabeled, classes)
    return unlabeled.training()


def class_plot(summaries: Sequence[Summary], classes: Classes) -> Image.Image:
    """Draw a bar for each class and split: its share of the pixels that are not void.

    Args:
        summaries: of the splits, in the order of the bars.
        classes: names and colors.
    """
    font, title = ImageFont.load_default(11), ImageFont.load_default(14)
    names = list(classes)
    label = round(max(font.getlength(name) for name in names)) + 8
    row = BAR * len(summaries) + 6
    column = label + LENGTH + 70
    columns = math.ceil(len(names) / ROWS)
    top = 30 + 18 * len(summaries)
    height = top + 22 + row * math.ceil(len(names) / columns)
    picture = Image.new("RGB", (max(column * columns, 560), height), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((6, 6), "share of the pixels that are not void, logarithmic", "black", font=title)
    for i, summary in enumerate(summaries):
        number = plural(sum(summary.sizes.values()), "image")
        text = f"bar {i + 1}: {summary.title}, {number}, void {summary.void_share:.2%}"
        draw.text((6, 26 + 18 * i), text, "black", font=font)
    rows = math.ceil(len(names) / columns)
    for i in range(columns):
        _scale(draw, i * column + 6 + label, top - 4, height - 20)
    for index, name in enumerate(names):
        left, y = index // rows * column + 6, top + index % rows * row
        draw.text((left, y + row / 2 - 9), name, "black", font=font)
        for i, summary in enumerate(summaries):
            share = float(summary.shares[index])
            box = (left + label, y + BAR * i, left + label + _length(share), y + BAR * (i + 1) - 2)
            if share > 0:
                draw.rectangle(box, fill=tuple(classes[name]), outline="black")
            text = f"{share:.3%}" if share >= LEAST else f"below {LEAST:.3%}"
            text = text if share else "none"
            draw.text((box[2] + 4, box[1] - 2), text, "black", font=ImageFont.load_default(9))
    return picture


def _length(share: float) -> int:
    """Return the length of a bar in pixels: 0 at a share of LEAST, LENGTH at 1."""
    return round(LENGTH * max(1 - math.log(max(share, LEAST)) / math.log(LEAST), 0))


def _scale(draw: ImageDraw.ImageDraw, left: int, top: int, bottom: int) -> None:
    font = ImageFont.load_default(9)
    for share in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1):
        x = left + _length(share)
        draw.line((x, top, x, bottom), fill=(190, 190, 190))
        draw.text((x - 8, bottom + 2), f"{100 * share:g} %", "black", font=font)
