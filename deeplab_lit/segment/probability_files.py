"""Files of probabilities beside masks: what they take on a disk.

Letters: C classes · H×W image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deeplab_lit.atomic import check_room
from deeplab_lit.data.class_maps import write_probabilities

MEASURED = 8  # files by which is judged whether the others have room


class Size(NamedTuple):
    """Bytes of one file of probabilities.

    Attributes:
        path: of the file.
        written: that it takes.
        whole: of the same numbers as float32.
    """

    path: Path
    written: int
    whole: int


def keep(path: Path, probabilities: np.ndarray) -> Size:
    """Write the probabilities (C,H,W) float32 of an image, and return what they take.

    Raises:
        OSError: the disk is full, or forbids it.
    """
    write_probabilities(path, probabilities)
    return Size(path, path.stat().st_size, probabilities.size * 4)


def in_words(sizes: Sequence[Size]) -> str:
    """Return what files take on average."""
    written = sum(size.written for size in sizes) / len(sizes) / 1e6
    whole = sum(size.whole for size in sizes) / len(sizes) / 1e6
    return f"{written:,.2f} MB an image, {whole:,.2f} MB as float32"


def room_for(sizes: Sequence[Size], number: int) -> str:
    """Return what all files will take, by the first ones; refuse a disk that is too small.

    Args:
        sizes: of the first files, which are written.
        number: of all files.

    Raises:
        NoRoomError: there is less room.
    """
    needed = sum(size.written for size in sizes) * (number - len(sizes)) // len(sizes)
    check_room(sizes[0].path.with_name("*.npz"), needed, "--out")
    return f"Probabilities: {in_words(sizes)}; about {needed / 1e9:,.2f} GB more to write"
