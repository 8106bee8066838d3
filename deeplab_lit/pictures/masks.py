"""Masks as pictures: blended over images, side by side with the truth, as palette files.

Letters: H×W image.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_lit.types import VOID, Classes, Color

Colors = Sequence[Color]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont  # the second without FreeType

VOID_COLOR = (224, 224, 192)  # VOC's, of index 255
NARROWEST = 160  # pixels of a legend
FAST = 1  # compression of a PNG: files a tenth larger than by default, in half the time


def palette(colors: Colors) -> np.ndarray:
    """Return the colors of all 256 mask values, (256,3) uint8: classes, black, VOC's void (255)."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    table[VOID] = VOID_COLOR
    return table


def palette_image(
    mask: np.ndarray, colors: Colors, values: Sequence[int] | None = None
) -> Image.Image:
    """Make an indexed image of a mask.

    Args:
        mask: (H,W) uint8, class indices and 255 for void.
        colors: of the classes.
        values: of the image's pixels for each class, in 0…255. None: the class indices.
    """
    table = palette(colors)
    if values is not None:
        table = np.zeros((256, 3), np.uint8)
        table[VOID] = VOID_COLOR
        table[list(values)] = colors
        value_of = np.full(256, VOID, np.uint8)
        value_of[: len(values)] = values
        mask = value_of[mask]
    image = Image.fromarray(mask)
    image.putpalette(table.tobytes())
    return image


def overlay(
    image: np.ndarray, mask: np.ndarray, colors: Colors, opacity: float = 0.5
) -> np.ndarray:
    """Blend the colors of a mask over an image.

    Args:
        image: (H,W,3) uint8 RGB.
        mask: (H,W) uint8, class indices and 255 for void.
        colors: of the classes.
        opacity: of the mask, 0…1.

    Returns:
        (H,W,3) uint8.
    """
    blended = image * (1 - opacity) + palette(colors)[mask] * opacity
    return blended.round().astype(np.uint8)


def short(name: str, longest: int = 40) -> str:
    """Shorten a name to one line of a picture, without line breaks and signs that cannot be drawn.

    Args:
        name: any text.
        longest: characters; of a longer name both ends are kept.
    """
    words = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if len(words) <= longest:
        return words
    end = longest // 3
    return f"{words[: longest - end - 1]}…{words[len(words) - end :]}"


def with_legend(picture: np.ndarray, mask: np.ndarray, classes: Classes) -> np.ndarray:
    """Put a picture above a strip with the names and colors of the classes in its mask.

    Args:
        picture: (H,W,3) uint8.
        mask: (H,W) uint8.
        classes: names and colors, in the order of the class indices.

    Returns:
        (H+h,W',3) uint8, with W' ≥ W: a small picture has white beside it.
    """
    indices = set(np.unique(mask).tolist())
    entries = {name: color for i, (name, color) in enumerate(classes.items()) if i in indices}
    if VOID in indices and len(classes) <= VOID:
        entries["void"] = VOID_COLOR
    width = picture.shape[1]
    strip = legend(entries, max(width, NARROWEST), size=max(12, round(width / 50)))
    return np.asarray(stack([Image.fromarray(picture), strip], gap=0))


def comparison(
    samples: Sequence[Sequence[np.ndarray]],
    classes: Classes,
    titles: Sequence[str] = ("image", "truth", "prediction"),
    width: int = 240,
    columns: int = 2,
    captions: Sequence[str] = (),
) -> Image.Image:
    """Draw image and masks of each sample side by side, above a legend.

    Args:
        samples: an image (H,W,3) and masks (H,W) each, all uint8.
        classes: names and colors.
        titles: of image and masks.
        width: of each picture in pixels.
        columns: samples in a row.
        captions: of each sample, if it has one.
    """
    colors = list(classes.values())
    strips = [_strip(image, masks, colors, width) for image, *masks in samples]
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
        classes = {**classes, "void": VOID_COLOR}
    return stack([title, *rows, legend(classes, title.width)])


def _strip(
    image: np.ndarray, masks: Sequence[np.ndarray], colors: Colors, width: int
) -> Image.Image:
    height = max(round(width * image.shape[0] / image.shape[1]), 1)
    strip = Image.new("RGB", ((1 + len(masks)) * width, height), "white")
    pictures = [image, *(palette(colors)[mask] for mask in masks)]
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
        font = ImageFont.load_default(13)
        words = _fitting(short(word, 200), font, width - 6)
        draw.text((i * width + 4, 3), words, "black", font=font)
    return title


def legend(classes: Classes, width: int, size: int = 12) -> Image.Image:
    """Draw names and colors of classes on a white strip, in as many lines as it takes.

    Args:
        classes: names and colors.
        width: of the strip in pixels; a longer name is cut.
        size: of the letters in pixels.
    """
    font, gap = ImageFont.load_default(size), max(round(size / 3), 1)
    placed, x, y = [], gap, gap
    for name, color in classes.items():
        words = _fitting(short(name), font, width - size - 4 * gap)
        needed = size + 4 * gap + round(font.getlength(words))
        if x + needed > width and x > gap:
            x, y = gap, y + round(1.5 * size)
        placed.append((x, y, words, color))
        x += needed
    strip = Image.new("RGB", (width, y + round(1.5 * size) + gap), "white")
    draw = ImageDraw.Draw(strip)
    for left, top, words, color in placed:
        draw.rectangle((left, top, left + size, top + size), fill=tuple(color), outline="black")
        draw.text((left + size + gap, top - 1), words, "black", font=font)
    return strip


def _fitting(words: str, font: Font, width: int) -> str:
    while len(words) > 1 and font.getlength(words) > width:
        words = short(words, len(words) - 1)
    return words


def stack(pictures: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    """Put pictures one below the other, with white of `gap` pixels under each."""
    sheet = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height + gap for p in pictures)), "white"
    )
    y = 0
    for picture in pictures:
        sheet.paste(picture, (0, y))
        y += picture.height + gap
    return sheet
