"""From a file's bytes to pixels: known formats only, within one limit, and nothing damaged.

Pillow would choose among all that it knows by the content (an EPS file starts Ghostscript), fills
up JPEGs that end early without a word, and does not look at a PNG's checksums.
"""

import io
import os
import struct
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
LIMIT = "DEEPLAB_LIT_MAX_PIXELS"
try:
    MAX_PIXELS = int(float(os.environ.get(LIMIT) or 2**30))  # 2³⁰: what OpenCV takes too
except (ValueError, OverflowError):
    MAX_PIXELS = 2**30
MORE = f"To read it nevertheless, set the environment variable {LIMIT} to a larger number"
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # else Pillow has a limit of its own, for some formats
# what Pillow, OpenCV and NumPy raise for files that are missing, truncated or something else
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, OverflowError),
    *(AttributeError, struct.error, zlib.error, cv2.error, Image.DecompressionBombError),
)
ORIENTATION, MAX_SAMPLE, BITS, WHITE_IS, REDUCED = 0x0112, 281, 258, 262, 254  # tags
END = b"\xff\xd9"  # of a JPEG
COMPLAINTS = (b"Corrupt JPEG data", b"Premature end of JPEG file")
PROGRESSIVE = b"\xff\xc2"  # marker of a JPEG whose picture comes in several scans
ENDS_EARLY = "the data end early, the rest would be gray"
_stderr = threading.Lock()
COMPRESSED = 15  # miCOMPRESSED of the description of MATLAB's format
MATLAB_HEADER = 128  # bytes


def opened(data: bytes) -> Image.Image:
    """Open the picture in a file's content, its pixels not decoded yet.

    Raises:
        UNREADABLE: none of the formats, too large, or more than one picture.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:  # at twice the limit
        raise ValueError(f"{error} {MORE}") from error
    refuse_huge(*image.size)
    if image.format not in ("JPEG", "MPO"):  # behind a photo there may be its depth or preview
        _refuse_pages(image)
    return image


def refuse_huge(width: int, height: int) -> None:
    """Raise a ValueError for a picture of more than MAX_PIXELS pixels."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}×{height} pixels, more than {MAX_PIXELS:,}. {MORE}")


def orientation_of(data: bytes) -> int:
    """Return how EXIF says that a picture is turned or mirrored, 1 (as it lies) … 8."""
    turned = opened(data).getexif().get(ORIENTATION, 1)
    return turned if turned in range(1, 9) else 1


def _refuse_pages(image: Image.Image) -> None:
    size, number = image.size, getattr(image, "n_frames", 1)
    for page in range(1, number):
        image.seek(page)
        preview = image.format == "TIFF" and (tags_of(image).get(REDUCED, 0) & 1)
        if not preview and (image.format != "TIFF" or image.size == size):
            raise ValueError(f"it holds {number} pictures (pages or frames), expected one")
    if number > 1:
        image.seek(0)


def tags_of(image: Image.Image) -> Mapping[int, Any]:
    """Return the tags of a TIFF; of another format, none."""
    return getattr(image, "tag_v2", {})


def decode_jpeg(data: bytes) -> tuple[np.ndarray | None, str]:
    """Decode a JPEG by OpenCV, twice as fast as Pillow, turned as its EXIF orientation says.

    Returns:
        RGB (H,W,3) uint8, None where only Pillow can say what is wrong; and what libjpeg says of
        damage, "" if nothing.

    Raises:
        ValueError: the data end early, which libjpeg fills up with gray.
    """
    end = data.rfind(END) + 2  # of the file; 1 where there is none, or of a preview before it
    for whole in (data[:end], data + END):
        rgb, words = _imdecode(whole)
        if rgb is None:
            continue
        if len(whole) > len(data) and PROGRESSIVE in data:  # of whose scans any may be missing
            raise ValueError(ENDS_EARLY)
        if words:  # libjpeg tells only its first: with bits to spare, does the picture change?
            longer, _ = _imdecode(whole[:-2] + b"\x55" * 64 + END)
            early = "remature end" in words or longer is None or not np.array_equal(longer, rgb)
            if early or len(whole) > len(data):
                raise ValueError(ENDS_EARLY)
        refuse_huge(*rgb.shape[1::-1])
        return rgb, words
    return None, ""


def _imdecode(data: bytes) -> tuple[np.ndarray | None, str]:
    """Decode, with libjpeg's words, which it can only write to the process's stderr.

    So threads take turns here; the workers of a DataLoader are processes and do not wait.
    """
    pixels = np.frombuffer(data, np.uint8)
    with _stderr:
        try:
            stderr = os.dup(2)
        except OSError:  # closed
            return _imdecode_alone(pixels), ""
        with _memory() as heard:
            os.dup2(heard.fileno(), 2)
            try:
                rgb = _imdecode_alone(pixels)
            finally:
                os.dup2(stderr, 2)
                heard.seek(0)
                said = heard.read(1 << 16)
                words = [line for line in said.splitlines() if line.startswith(COMPLAINTS)]
                if said and not words:  # of another thread
                    os.write(stderr, said)
                os.close(stderr)
    return rgb, words[0].decode("ascii", "replace") if words else ""


def _imdecode_alone(pixels: np.ndarray) -> np.ndarray | None:
    try:
        return cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # a size that OpenCV refuses
        return None


def _memory() -> io.FileIO:
    if hasattr(os, "memfd_create"):
        return io.FileIO(os.memfd_create("stderr"), "r+")
    return tempfile.TemporaryFile(buffering=0)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Name and content of each chunk of a PNG, up to IEND.

    Raises:
        ValueError: a checksum (CRC-32) does not fit, or the file ends early.
    """
    at, kind, view = 8, b"", memoryview(data)
    while kind != b"IEND":
        try:
            length, kind = struct.unpack_from(">I4s", data, at)
            (crc,) = struct.unpack_from(">I", data, at + 8 + length)
        except struct.error as error:
            raise ValueError("the PNG ends early") from error
        if zlib.crc32(view[at + 4 : at + 8 + length]) != crc:
            raise ValueError(f"damaged: the checksum of its chunk {kind.decode('latin-1')} differs")
        yield kind, view[at + 8 : at + 8 + length]
        at += 12 + length


def exact(data: bytes) -> Image.Image:
    """Open as `opened` does, a file that holds values exactly: no lossy format, and not damaged.

    PNG is the one format with checksums; what is damaged in another may go unseen.

    Raises:
        UNREADABLE: as `opened`; or values are compressed with a loss, stretched or inverted.
    """
    image = opened(data)
    tags = tags_of(image)
    lossy = image.format in ("JPEG", "MPO") or (image.format == "WEBP" and b"VP8L" not in data)
    if lossy or any(name in str(image.info.get("compression")) for name in ("jpeg", "webp")):
        raise ValueError(
            f"{image.format} with a loss: it changes values, and with them classes; save masks as "
            "PNG from the original annotations"
        )
    if tags.get(ORIENTATION, 1) != 1:
        raise ValueError("a TIFF with an orientation, which some turn and some do not: remove it")
    stretched = tags.get(BITS, (8,))[0] in (2, 4) and image.mode == "L"
    if image.format == "PNG":
        for _ in png_chunks(data):
            pass
        stretched = data[24] in (2, 4) and data[25] == 0
    if image.format == "PPM" and image.mode == "1":
        raise ValueError("black is 1 in a PBM file, and 0 for those who read it: save 8 bits")
    if image.format == "PPM":
        # by another of Pillow's decoders, which ImageFile knows, for another largest value
        stretched = getattr(image, "tile", [("raw",)])[0][0] != "raw"
    if stretched or tags.get(WHITE_IS, 1) == 0:
        raise ValueError("gray values that are stretched or inverted as they are read: save 8 bits")
    return image


def significant_bits(image: Image.Image, data: bytes) -> int:
    """Return the bits of a sample that count: as the file says (sBIT, MaxSampleValue), or all."""
    if image.format == "PNG" and data[24] > 8:
        for kind, content in png_chunks(data):
            if kind == b"IDAT":
                break
            if kind == b"sBIT":
                return max(content[:3])
    if image.format == "PNG":
        return data[24]
    tags = tags_of(image)
    if MAX_SAMPLE in tags:
        return int(np.max(tags[MAX_SAMPLE])).bit_length()
    return max(tags.get(BITS, (16 if image.mode.startswith("I") else 8,)))


def load_mat(path: Path, key: str) -> np.ndarray:
    """Read a matrix or struct.

    Args:
        path: of the file.
        key: name of the variable.

    Raises:
        Exception: of any kind, as SciPy has no common class for what a bad file makes it raise.
    """
    from scipy.io import loadmat

    _check_compressed(path.read_bytes())
    return np.asarray(loadmat(path, variable_names=[key])[key])


def _check_compressed(content: bytes) -> None:
    """Raise a zlib.error where a part is damaged: SciPy parses what it has not checked yet.

    That may end the process, as in SciPy 1.17 a wrong length does.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[MATLAB_HEADER - 2 : MATLAB_HEADER])
    place = MATLAB_HEADER
    while order and place + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        if kind == COMPRESSED:
            zlib.decompress(content[place + 8 : place + 8 + size])
        place += 8 + size
