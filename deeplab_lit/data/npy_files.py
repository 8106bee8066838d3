"""Read .npy and .npz files of NumPy, and run nothing that they hold.

A .npy file of a dictionary, as IRN and CLIP-ES write their maps by `np.save`, is a pickle; see
array_pickles.py.
"""

import io
import pickle
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from deeplab_lit.data.array_pickles import (
    MOST_BYTES,
    MOST_STEPS,
    array_of,
    unpickled_array,
    unpickled_dictionary,
)
from deeplab_lit.data.image import DataError
from deeplab_lit.data.pickle_steps import Refused

# what Python, NumPy and zipfile raise for content that is damaged or made to do harm
DAMAGED = (
    *(OSError, ValueError, LookupError, TypeError, EOFError, OverflowError, AttributeError),
    *(MemoryError, RecursionError, SyntaxError, NotImplementedError, RuntimeError),
    *(pickle.UnpicklingError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
Content = np.ndarray | dict[Any, Any]


def read_npy(path: Path, most_steps: int = MOST_STEPS) -> Content:
    """Read a .npy file: an array, or a dictionary of arrays, numbers and texts.

    Args:
        path: of the file.
        most_steps: of a pickle, which has about 20 for each array.

    Returns:
        The array of numbers; tensors in a dictionary are arrays as well.

    Raises:
        DataError: missing, damaged, or a pickle that asks for what is not allowed.
    """
    try:
        return _content(path.read_bytes(), most_steps)
    except DAMAGED as error:
        raise _unreadable(path, error) from error


def read_npz(path: Path) -> dict[str, Content]:
    """Read a .npz file: name → what `read_npy` returns of such a file.

    Raises:
        DataError: as `read_npy`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len({member.filename for member in members}) < len(members):
                raise Refused("two arrays in it have the same name")
            if sum(member.file_size for member in members) > MOST_BYTES:
                raise Refused(f"it holds more than {MOST_BYTES:,} bytes")
            return {
                member.filename.removesuffix(".npy"): _content(archive.read(member), MOST_STEPS)
                for member in members
            }
    except DAMAGED as error:
        raise _unreadable(path, error) from error


def read_pickled_array(path: Path) -> np.ndarray:
    """Read a pickle of one array, as Mittal et al. keep the order of their splits.

    Raises:
        DataError: as `read_npy`; or it holds something else.
    """
    try:
        return unpickled_array(path.read_bytes())
    except DAMAGED as error:
        raise _unreadable(path, error, "a pickle of an array") from error


def _unreadable(path: Path, error: Exception, expected: str = "") -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist")
    reason = " ".join((str(error) or type(error).__name__).split())[:300]
    expected = expected or f"a {path.suffix} file of NumPy"
    return DataError(f"{path}: cannot be read as {expected} ({reason})")


def _content(data: bytes, most_steps: int) -> Content:
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    head = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = head(file)
    rest = memoryview(data)[file.tell() :]
    if dtype.hasobject:
        return unpickled_dictionary(rest, most_steps)
    return array_of(dtype, shape, is_fortran, rest)
