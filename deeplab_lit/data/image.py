"""Reading image and mask files into arrays.

One reader serves training, evaluation and prediction, so that an image looks the same to all three.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from deeplab_lit.data.decode import (
    FORMATS,
    ORIENTATION,
    UNREADABLE,
    decode_jpeg,
    exact,
    load_mat,
    opened,
    significant_bits,
)
from deeplab_lit.errors import UserError
from deeplab_lit.types import VOID, Color

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
IN_COLORS = (
    "Save it as a gray or palette PNG of class indices; or, with --data Folder, give each class "
    'its color in classes.txt ("name  red green blue").'
)
DARK = 4095  # 16-bit values that stay below look black


class DataError(UserError, ValueError):
    """Something is wrong with the data: names the file, what was found and what to do."""


class DataWarning(UserWarning):
    """A file can be read, but may not be what it should: names it and says why."""


@contextmanager
def damage_kept(problems: list[str]) -> Iterator[None]:
    """Add the DataWarnings of a block, of all its threads, to a list instead of showing them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, DataWarning):
            problems.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


class MissingFiles(DataError):
    """Files of a data set are not there.

    Attributes:
        files: all of them.
        hint: what may be meant instead, a sentence; or "".
    """

    def __init__(self, message: str, files: list[Path], hint: str = "") -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.files = files
        self.hint = hint


def size_in_file(path: Path) -> tuple[int, int]:
    """Return (width, height) of a picture by the head of its file, not turned by EXIF.

    Raises:
        UNREADABLE: missing, or none of the formats.
    """
    with Image.open(path, formats=FORMATS) as image:
        return image.size


def size_of_image(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image as `read_image` turns it, by the head of its file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            turned = image.getexif().get(ORIENTATION, 1) in range(5, 9)
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image ({_first_line(error)})") from error
    return (width, height) if turned else (height, width)


def read_image(path: Path) -> np.ndarray:
    """Read an image as people see it: RGB (H,W,3) uint8, turned as its EXIF orientation says.

    Gray becomes RGB, transparency is dropped, deeper values are scaled to 8 bits. What can be read
    although libjpeg says that it is damaged is named in a DataWarning.

    Raises:
        DataError: missing, truncated, not an image, of several pages, or so dark in 16 bits that
            its values must be meant otherwise.
    """
    words = ""
    try:
        data, rgb = path.read_bytes(), None
        if data.startswith(b"\xff\xd8\xff"):
            rgb, words = decode_jpeg(data)
        if rgb is None:
            with opened(data) as image:
                rgb = _to_rgb8(image, data)
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image ({_first_line(error)})") from error
    if words:
        warnings.warn(
            f"{path}: damaged, but it can be read; look at it (libjpeg: {words})",
            DataWarning,
            stacklevel=2,
        )
    return rgb


def _to_rgb8(image: Image.Image, data: bytes) -> np.ndarray:
    if image.mode == "F":
        raise ValueError("floating-point pixels; convert it to 8 or 16 bits")
    turned, image_format = image.getexif().get(ORIENTATION, 1), image.format
    bits = significant_bits(image, data)
    deep: np.ndarray | None = None
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow may hold in 32 bits
        deep = np.asarray(image).astype(np.int64)
        if image.mode == "I" and deep.max() <= VOID:
            bits = 8
    elif bits > 8 or (image.format == "PNG" and data[24] == 16):  # Pillow keeps the upper byte
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if bgr is not None:
            deep = (bgr if bgr.ndim == 2 else bgr[..., 2::-1]).astype(np.int64)
    if deep is not None:
        highest = int(deep.max())
        bits = bits if highest < 2**bits else 16  # scaled to the full range, as PNG wants it
        if bits > 12 and 0 < highest <= DARK:
            raise ValueError(
                f"16-bit pixels of which none is above {highest}: they would look black. Do "
                f"they have {max(highest.bit_length(), 8)} bits? Save 8 bits, or scale to 0…65535"
            )
        image = Image.fromarray(
            (deep * 255 // (2 ** min(bits, 16) - 1)).clip(0, 255).astype(np.uint8)
        )
        if image_format != "TIFF":  # which Pillow has turned when it read the pixels
            image.getexif()[ORIENTATION] = turned
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))  # writable


def read_mask(path: Path, remedy: str | None = None) -> np.ndarray:
    """Read a mask's raw values: (H,W) uint8; of a palette image the indices, never its colors.

    EXIF orientation is not looked at: a mask is as its pixels lie. `.mat` files are read as
    SBD's (GTcls.Segmentation).

    Args:
        path: of the file.
        remedy: the end of the message about a mask in colors. None: something for any mask.

    Raises:
        DataError: missing, damaged, not an image, in a lossy format, in color, or with values
            that are no whole numbers in 0…255.
    """
    try:
        if path.suffix.lower() == ".mat":
            mode, values = "MATLAB", _read_sbd(path)
        else:
            with exact(path.read_bytes()) as image:
                mode, values = image.mode, np.asarray(image)
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a mask ({_first_line(error)})") from error
    if values.ndim != 2:
        raise DataError(
            f"{path}: a mask holds one class index a pixel, but this image has mode {mode}. "
            + (remedy or IN_COLORS)
        )
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise DataError(
            f"{path}: floating-point values that are no class indices "
            f"({np.count_nonzero(values != np.rint(values)):,} pixels, as NaN or 0.5). Save it as "
            "a gray or palette PNG of class indices."
        )
    if values.max() > 255 or values.min() < 0:
        raise DataError(f"{path}: mask values {values.min()}…{values.max()}, expected 0…255")
    return values.astype(np.uint8)


def read_palette(path: Path) -> bytes | None:
    """Read a mask's palette: red, green and blue of value 0, of value 1 and so on.

    Returns:
        None where the file has none, or a gray ramp, which says no more than the values.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix.lower() in (".mat", ".npy", ".npz"):
        return None
    try:
        with opened(path.read_bytes()) as image:
            palette = bytes(image.getpalette() or b"") if image.mode == "P" else b""
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a mask ({_first_line(error)})") from error
    ramp = bytes(value for value in range(256) for _ in range(3))
    return None if ramp.startswith(palette) else palette


@lru_cache(64)  # the files of a set have few palettes
def unique_colors(palette: bytes | None) -> dict[int, Color]:
    """Return value → its color, where no other value of the palette has the same.

    Args:
        palette: as `read_palette` returns it.
    """
    channels = iter(palette or b"")
    colors = list(zip(channels, channels, channels, strict=False))
    often = Counter(colors)
    return {value: color for value, color in enumerate(colors) if often[color] == 1}


def read_colors(path: Path) -> np.ndarray:
    """Read a mask's colors, (H,W) uint32 as 0xBBGGRR; gray is the color of three such values.

    Raises:
        DataError: missing, damaged, not an image, in a lossy format, deeper than 8 bits, or with
            transparent pixels.
    """
    try:
        data = path.read_bytes()
        with exact(data) as image:
            deep = significant_bits(image, data) > 8 or (image.format == "PNG" and data[24] > 8)
            if deep or image.mode[0] in "IF":
                raise ValueError("more than 8 bits a channel; colors in classes.txt have 8")
            if image.mode in ("RGBA", "LA") and np.asarray(image.getchannel("A")).min() < 255:
                raise ValueError("transparent pixels, whose color is not certain")
            rgba = np.asarray(image.convert("RGBA"))
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a mask ({_first_line(error)})") from error
    return rgba.view("<u4")[..., 0] & 0xFFFFFF  # 4 bytes at once: several times faster


def _read_sbd(path: Path) -> np.ndarray:
    try:
        return np.asarray(load_mat(path, "GTcls")["Segmentation"][0, 0])
    except Exception as error:  # SciPy has no common class for what a bad file makes it raise
        raise ValueError(f"no GTcls.Segmentation: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
