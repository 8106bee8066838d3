"""Colors of classes."""

from deeplab_lit.types import Color


def voc_color(index: int) -> Color:
    """The color of a class index in PASCAL VOC's masks, for any index from 0 to 255.

    The devkit's rule (VOClabelcolormap.m): the bits of the index, three at a time, go to the top
    bits of red, green and blue.
    """
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (index & 1) << shift
        green |= (index >> 1 & 1) << shift
        blue |= (index >> 2 & 1) << shift
        index >>= 3
    return red, green, blue


def voc_palette() -> list[int]:
    """VOC's colors of all indices from 0 to 255, as Pillow's `putpalette` takes them."""
    return [channel for index in range(256) for channel in voc_color(index)]
