"""How often each class occurs, as a picture of bars."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from deeplab_lit.data.check import Summary
from deeplab_lit.text import plural
from deeplab_lit.types import Classes

BAR, ROWS, LENGTH = 11, 50, 260  # height of a bar, classes in a column, length of the longest bar
LEAST = 1e-5  # share at which a bar has no length: the scale is logarithmic


def class_plot(summaries: Sequence[Summary], classes: Classes) -> Image.Image:
    """A bar for each class and split: its share of the pixels that are not void.

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
    """From nothing at LEAST to LENGTH at all pixels, in pixels."""
    return round(LENGTH * max(1 - math.log(max(share, LEAST)) / math.log(LEAST), 0))


def _scale(draw: ImageDraw.ImageDraw, left: int, top: int, bottom: int) -> None:
    font = ImageFont.load_default(9)
    for share in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1):
        x = left + _length(share)
        draw.line((x, top, x, bottom), fill=(190, 190, 190))
        draw.text((x - 8, bottom + 2), f"{100 * share:g} %", "black", font=font)
