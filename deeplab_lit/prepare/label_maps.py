"""Annotations of any kind to palette PNGs of class indices, on all cores; lists of images."""

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.classes import voc_palette
from deeplab_lit.data.decode import load_mat
from deeplab_lit.data.image import DataError
from deeplab_lit.progress_bar import progress_bar

# an annotation, as a file of it → class indices (H,W) uint8, 255 void
Reader = Callable[[Any], np.ndarray]
SHOWN = 10  # problems listed before the rest is only counted


def convert(jobs: Sequence[tuple[Any, Path]], read: Reader, title: str) -> None:
    """Write a mask for every annotation; skip masks that exist.

    Args:
        jobs: (annotation, mask file) each; most annotations are files.
        read: reads an annotation; like it, can be sent to other processes.
        title: of the progress bar.

    Raises:
        DataError: names those that cannot be read. The others are written.
    """
    todo = [job for job in jobs if not job[1].is_file()]
    workers = min(os.cpu_count() or 1, 8)
    with ProcessPoolExecutor(workers, initializer=_leave_signals_to_main) as pool:
        try:
            results = pool.map(partial(_convert, read=read), todo, chunksize=16)
            progress = progress_bar(
                results,
                desc=title,
                total=len(jobs),
                initial=len(jobs) - len(todo),
                unit=" masks",
            )
            problems = [problem for problem in progress if problem]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if problems:
        more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError("\n".join(problems[:SHOWN]) + more)


def read_mat(path: Path, key: str) -> np.ndarray:
    """Read the integer matrix `key` of a MATLAB file, (H,W).

    Raises:
        DataError: it cannot be read, or there is no such matrix.
    """
    try:
        matrix = load_mat(path, key)
    except Exception as error:  # SciPy has no common class for what a bad file makes it raise
        raise DataError(f"{path}: no matrix {key} can be read from it ({error})") from error
    if matrix.ndim != 2 or matrix.dtype.kind not in "iu":
        raise DataError(f"{path}: {key} is {matrix.dtype} of shape {matrix.shape}, not a label map")
    return matrix


def _leave_signals_to_main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _convert(job: tuple[Any, Path], read: Reader) -> str | None:
    source, target = job
    try:
        mask = read(source)
    except DataError as error:
        return str(error)
    image = Image.fromarray(mask)
    image.putpalette(voc_palette())
    with atomic_write(target) as temporary:
        image.save(temporary, format="PNG")
    return None


def write_list(path: Path, ids: list[str]) -> None:
    """Write the ids of images atomically, one a line."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{id}\n" for id in ids), "utf-8")
