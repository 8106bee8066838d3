"""Annotations of any kind to palette PNGs of class indices, on all cores."""

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.classes import voc_palette
from deeplab_lit.data.decode import load_mat
from deeplab_lit.data.image import DataError
from deeplab_lit.progress_bar import progress_bar

Reader = Callable[[Path], np.ndarray]  # a file → class indices (H,W) uint8, 255 void
SHOWN = 10  # problems listed before the rest is only counted


def convert(jobs: Sequence[tuple[Path, Path]], read: Reader, what: str) -> None:
    """Write a mask for every annotation; those that are there already are left.

    Args:
        jobs: annotation and mask.
        read: a function that can be sent to other processes.
        what: for the progress bar.

    Raises:
        DataError: all the files that cannot be read. The others are written.
    """
    todo = [job for job in jobs if not job[1].is_file()]
    workers = min(os.cpu_count() or 1, 8)
    with ProcessPoolExecutor(workers, initializer=_leave_signals_to_main) as pool:
        try:
            results = pool.map(partial(_convert, read=read), todo, chunksize=16)
            progress = progress_bar(
                results,
                desc=what,
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
    """The matrix of that name in a MATLAB file, (H,W).

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


def _convert(job: tuple[Path, Path], read: Reader) -> str | None:
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
