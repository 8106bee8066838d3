"""Videos and webcams, frame by frame, as a video with the classes' colours over it."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from deeplab_lit.data.image import DataError
from deeplab_lit.segment.segmenter import Segmenter
from deeplab_lit.training.picture import overlay

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
WEBCAM = "webcam:"
USUAL_RATE = 25.0  # frames a second, where the source does not say


def is_video(source: str) -> bool:
    """Whether an input is a video file or a webcam ("webcam:0" is the first)."""
    return source.startswith(WEBCAM) or Path(source).suffix.lower() in SUFFIXES


def segment_video(source: str, out: Path, segmenter: Segmenter, opacity: float) -> Path:
    """Write the video with its masks blended over it, at its size and frame rate, without sound.

    The progress bar shows frames a second. Ctrl-C ends it, and what is done is a whole file; that
    is also how a webcam ends.

    Args:
        source: a video file, or "webcam:<number>".
        out: folder of the result.
        segmenter: of each frame.
        opacity: of the colours, 0…1.

    Returns:
        The video written, an MP4.

    Raises:
        DataError: the source cannot be read, or is in the results already.
    """
    name = source.replace(":", "") if source.startswith(WEBCAM) else Path(source).stem
    path = out / f"{name}.mp4"
    if path.exists():
        raise DataError(f"{path} is there already: remove it, or choose another --out")
    film = _opened(source)
    rate = film.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate < 1000 else USUAL_RATE
    expected = int(film.get(cv2.CAP_PROP_FRAME_COUNT))
    temporary = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    frames = tqdm(
        _frames(film, source),
        f"{name}",
        total=expected if expected > 0 else None,
        unit=" frames",
        dynamic_ncols=True,
    )
    try:
        for frame in frames:
            if writer is None:
                height, width = frame.shape[:2]
                tqdm.write(segmenter.cost((height, width)))
                codec = cv2.VideoWriter.fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(temporary), codec, rate, (width, height))
            shown = overlay(frame, segmenter(torch.from_numpy(frame)), segmenter.colours, opacity)
            writer.write(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
    finally:  # after Ctrl-C too: a film without its end cannot be played
        film.release()
        if writer is not None:
            writer.release()
            temporary.replace(path)
    return path


def _opened(source: str) -> cv2.VideoCapture:
    where = source
    if source.startswith(WEBCAM):
        number = source.removeprefix(WEBCAM)
        if not number.isdecimal():
            raise DataError(f"--images {source}: expected webcam:0, webcam:1, …")
        where = int(number)
    elif not Path(source).is_file():
        raise DataError(f"--images {source}: no such file")
    film = cv2.VideoCapture(where)
    if not film.isOpened():
        what = "no such camera" if source.startswith(WEBCAM) else "cannot be read as a video"
        raise DataError(f"--images {source}: {what}")
    return film


def _frames(film: cv2.VideoCapture, source: str) -> Iterator[np.ndarray]:
    """Frames (H,W,3) uint8 RGB until the end."""
    number = 0
    while True:
        there, frame = film.read()
        if not there:
            break
        number += 1
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    if not number:
        raise DataError(f"--images {source}: not one frame can be read")
