"""Masks as pictures: blended over images, side by side with the truth, as palette files.

Letters: H×W image.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_lit.training.metric import VOID

Colours = Sequence[tuple[int, int, int]]

VOID_COLOUR = (224, 224, 192)  # VOC's, of index 255


def palette(colours: Colours) -> np.ndarray:
    """Colours of all 256 mask values, (256,3) uint8: the classes, then black, 255 as in VOC."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    table[VOID] = VOID_COLOUR
    return table


def palette_image(
    mask: np.ndarray, colours: Colours, values: Sequence[int] | None = None
) -> Image.Image:
    """Make an indexed image of a mask.

    Args:
        mask: (H,W) uint8, class indices and 255 for void.
        colours: of the classes.
        values: of the image's pixels for each class, in 0…255. None: the class indices.
    """
    table = palette(colours)
    if values is not None:
        shown = np.zeros((256, 3), np.uint8)
        shown[VOID] = VOID_COLOUR
        shown[list(values)] = colours
        as_values = np.full(256, VOID, np.uint8)
        as_values[: len(values)] = values
        mask, table = as_values[mask], shown
    image = Image.fromarray(mask)
    image.putpalette(table.tobytes())
    return image


def overlay(
    image: np.ndarray, mask: np.ndarray, colours: Colours, opacity: float = 0.5
) -> np.ndarray:
    """Image (H,W,3) uint8 with the mask's colours blended over it."""
    blended = image * (1 - opacity) + palette(colours)[mask] * opacity
    return blended.round().astype(np.uint8)


def comparison(
    samples: Sequence[Sequence[np.ndarray]],
    classes: dict[str, tuple[int, int, int]],
    titles: Sequence[str] = ("image", "truth", "prediction"),
    width: int = 240,
    columns: int = 2,
    captions: Sequence[str] = (),
) -> Image.Image:
    """Image and masks of each sample side by side, above a legend.

    Args:
        samples: an image (H,W,3) and masks (H,W) each, all uint8.
        classes: names and colours.
        titles: of image and masks.
        width: of each picture in pixels.
        columns: samples in a row.
        captions: of each sample, if it has one.
    """
    colours = list(classes.values())
    strips = [_strip(image, masks, colours, width) for image, *masks in samples]
    if captions:
        pairs = zip(captions, strips, strict=True)
        strips = [stack([_title([caption], strip.width), strip]) for caption, strip in pairs]
    columns = min(columns, len(strips))
    title = _title([*titles] * columns, width)
    rows = [
        _beside(strips[i : i + columns], len(titles) * width)
        for i in range(0, len(strips), columns)
    ]
    if any((mask == VOID).any() for _, *masks in samples for mask in masks):
        classes = classes | {"void": VOID_COLOUR}
    return stack([title, *rows, _legend(classes, title.width)])


def _strip(
    image: np.ndarray, masks: Sequence[np.ndarray], colours: Colours, width: int
) -> Image.Image:
    height = max(round(width * image.shape[0] / image.shape[1]), 1)
    strip = Image.new("RGB", ((1 + len(masks)) * width, height), "white")
    pictures = [image, *(palette(colours)[mask] for mask in masks)]
    for i, picture in enumerate(pictures):
        resample = Image.Resampling.BILINEAR if i == 0 else Image.Resampling.NEAREST
        strip.paste(Image.fromarray(picture).resize((width - 2, height), resample), (i * width, 0))
    return strip


def _beside(strips: Sequence[Image.Image], width: int) -> Image.Image:
    row = Image.new("RGB", (len(strips) * width, max(strip.height for strip in strips)), "white")
    for i, strip in enumerate(strips):
        row.paste(strip, (i * width, 0))
    return row


def _title(words: Sequence[str], width: int) -> Image.Image:
    title = Image.new("RGB", (len(words) * width, 20), "white")
    draw = ImageDraw.Draw(title)
    for i, word in enumerate(words):
        draw.text((i * width + 4, 3), word, "black", font=ImageFont.load_default(13))
    return title


def _legend(classes: dict[str, tuple[int, int, int]], width: int) -> Image.Image:
    font = ImageFont.load_default(12)
    placed, x, y = [], 4, 4
    for name, colour in classes.items():
        needed = 26 + round(font.getlength(name))
        if x + needed > width:
            x, y = 4, y + 18
        placed.append((x, y, name, colour))
        x += needed
    legend = Image.new("RGB", (width, y + 20), "white")
    draw = ImageDraw.Draw(legend)
    for left, top, name, colour in placed:
        draw.rectangle((left, top, left + 12, top + 12), fill=tuple(colour), outline="black")
        draw.text((left + 16, top - 1), name, "black", font=font)
    return legend


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other."""
    sheet = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height + 2 for p in pictures)), "white"
    )
    y = 0
    for picture in pictures:
        sheet.paste(picture, (0, y))
        y += picture.height + 2
    return sheet
