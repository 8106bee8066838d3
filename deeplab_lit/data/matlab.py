"""Matrices in MATLAB files, in which some data sets keep their masks. Nothing in them is executed.

Compressed content (MATLAB's and SciPy's default) has a checksum, which is looked at. Uncompressed
content has none: a flipped bit there is another value.
"""

import struct
import zlib
from pathlib import Path

import numpy as np

COMPRESSED = 15  # miCOMPRESSED of the format's description
HEADER = 128


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
    order = {b"IM": "<", b"MI": ">"}.get(content[HEADER - 2 : HEADER])
    place = HEADER
    while order and place + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        if kind == COMPRESSED:
            zlib.decompress(content[place + 8 : place + 8 + size])
        place += 8 + size
