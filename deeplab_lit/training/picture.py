"""Masks as pictures: blended over images, side by side with the truth, as palette files.

Letters: H×W image.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colours = Sequence[tuple[int, int, int]]

VOID_COLOUR = (224, 224, 192)  # VOC's, of index 255


def palette(colours: Colours) -> np.ndarray:
    """Colours of all 256 mask values, (256,3) uint8: the classes, then black, 255 as in VOC."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    table[255] = VOID_COLOUR
    return table


def palette_image(mask: np.ndarray, colours: Colours) -> Image.Image:
    """A mask (H,W) uint8 as an indexed image: its pixels are class indices, shown in colour."""
    image = Image.fromarray(mask)
    image.putpalette(palette(colours).tobytes())
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
) -> Image.Image:
    """Image and masks of each sample side by side, above a legend.

    Args:
        samples: an image (H,W,3) and masks (H,W) each, all uint8.
        classes: names and colours.
        titles: of image and masks.
        width: of each picture in pixels.
        columns: samples in a row.
    """
    colours = list(classes.values())
    strips = [_strip(image, masks, colours, width) for image, *masks in samples]
    columns = min(columns, len(strips))
    title = _title([*titles] * columns, width)
    rows = [
        _beside(strips[i : i + columns], len(titles) * width)
        for i in range(0, len(strips), columns)
    ]
    return _stack([title, *rows, _legend(classes, title.width)])


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


def _stack(pictures: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height + 2 for p in pictures)), "white"
    )
    y = 0
    for picture in pictures:
        sheet.paste(picture, (0, y))
        y += picture.height + 2
    return sheet


def heat_maps(scores: dict[tuple[float, float, float], float], names: Sequence[str]) -> Image.Image:
    """Scores of three parameters: a map of the first two for each value of the third.

    Args:
        scores: parameters → score; the best is framed.
        names: of the parameters.
    """
    best, low, high = max(scores, key=scores.get), min(scores.values()), max(scores.values())
    panels = [
        _heat_map(
            {point[:2]: value for point, value in scores.items() if point[2] == third},
            best[:2] if best[2] == third else None,
            (low, high),
            (*names[:2], f"{names[2]} {third:g}"),
        )
        for third in sorted({point[2] for point in scores})
    ]
    return _stack([_beside(panels[i : i + 2], panels[0].width) for i in range(0, len(panels), 2)])


def _heat_map(
    scores: dict[tuple[float, float], float],
    best: tuple[float, float] | None,
    limits: tuple[float, float],
    names: Sequence[str],
    size: tuple[int, int] = (620, 220),
) -> Image.Image:
    """One map, first parameter down, second across, values in percent in the cells."""
    rows, columns = (sorted({point[i] for point in scores}) for i in (0, 1))
    font = ImageFont.load_default(12)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((4, 2), f"{names[2]}   (down: {names[0]}, across: {names[1]})", "black", font=font)
    left, top = 40, 38
    width, height = (size[0] - left - 12) // len(columns), (size[1] - top - 8) // len(rows)
    for i, row in enumerate(rows):
        draw.text((4, top + i * height + height // 2 - 7), f"{row:g}", "black", font=font)
    for j, column in enumerate(columns):
        draw.text((left + j * width + 4, 20), f"{column:g}", "black", font=font)
    for (row, column), value in scores.items():
        x, y = left + columns.index(column) * width, top + rows.index(row) * height
        share = (value - limits[0]) / (limits[1] - limits[0] or 1)
        colour = (round(255 - 200 * share), round(255 - 90 * share), round(255 - 160 * share))
        outline = "red" if (row, column) == best else "white"
        draw.rectangle((x, y, x + width - 2, y + height - 2), colour, outline, 2)
        draw.text((x + 4, y + height // 2 - 7), f"{100 * value:.2f}", "black", font=font)
    return picture
