"""Reading image and mask files into arrays.

One reader serves training, evaluation and prediction, so that an image looks the same to all three.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from deeplab_lit.data.matlab import load_mat
from deeplab_lit.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
VOID = 255
# what Pillow and NumPy raise for files that are missing, truncated or something else
UNREADABLE = (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError)


class DataError(UserError, ValueError):
    """Something is wrong with the data: names the file, what was found and what to do."""


class MissingFiles(DataError):
    """Files of a data set are not there.

    Attributes:
        files: all of them.
    """

    def __init__(self, message: str, files: list[Path]) -> None:
        super().__init__(message)
        self.files = files


def read_image(path: Path) -> np.ndarray:
    """An image as people see it: RGB (H,W,3) uint8, turned as its EXIF orientation says.

    Grey becomes RGB, transparency is dropped, 16-bit values are scaled to 8 bits.

    Raises:
        DataError: missing, truncated, or not an image.
    """
    try:
        data = np.fromfile(path, np.uint8)
        # OpenCV is faster than Pillow, but fills a truncated JPEG with grey: whole ones only
        if data[:3].tobytes() == b"\xff\xd8\xff" and data[-2:].tobytes() == b"\xff\xd9":
            rgb = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
            if rgb is not None:
                return rgb
        with Image.open(path) as image:
            return _to_rgb8(ImageOps.exif_transpose(image))
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image ({_first_line(error)})") from error


def _to_rgb8(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise ValueError("floating-point pixels; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow may hold in 32 bits
        grey = np.asarray(image).astype(np.int64)
        if image.mode != "I" or grey.max() > 255:
            grey = grey // 257
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    return np.array(image.convert("RGB"))  # writable


def read_mask(path: Path) -> np.ndarray:
    """A mask's raw values: (H,W) uint8; of a palette image the indices, never its colours.

    EXIF orientation is not looked at: a mask is as its pixels lie. `.mat` files are read as
    SBD's (GTcls.Segmentation).

    Raises:
        DataError: missing, truncated, not an image, in colour, or with values above 255.
    """
    try:
        if path.suffix == ".mat":
            mode, values = "MATLAB", _read_sbd(path)
        else:
            with Image.open(path) as image:
                mode, values = image.mode, np.asarray(image)
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a mask ({_first_line(error)})") from error
    if values.ndim != 2:
        raise DataError(
            f"{path}: a mask holds one class index a pixel, but this image has mode {mode}. "
            "Save it as a grey or palette PNG of class indices."
        )
    if values.dtype == np.uint8:
        return values
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
    if path.suffix == ".mat":
        return None
    try:
        with Image.open(path) as image:
            palette = bytes(image.getpalette() or b"") if image.mode == "P" else b""
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a mask ({_first_line(error)})") from error
    ramp = bytes(value for value in range(256) for _ in range(3))
    return None if ramp.startswith(palette) else palette


def _read_sbd(path: Path) -> np.ndarray:
    try:
        return np.asarray(load_mat(path, "GTcls")["Segmentation"][0, 0])
    except Exception as error:  # SciPy has no common class for what a bad file makes it raise
        raise ValueError(f"no GTcls.Segmentation: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
