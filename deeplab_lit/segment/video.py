"""Segment videos and webcams, frame by frame, into a video with the classes' colors over it."""

import errno
import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from deeplab_lit.data.image import DataError
from deeplab_lit.pictures.masks import overlay, palette_image
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.segment.images import save
from deeplab_lit.segment.segmenter import Segmenter
from deeplab_lit.text import plural

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
WEBCAM = "webcam:"
MISCOUNTED = 0.02  # of the frames: some files only say how long they are
USUAL_RATE = 25.0  # frames a second, where the source does not say


def is_video(source: str) -> bool:
    """Tell whether an input is a video file or a webcam ("webcam:0" is the first)."""
    return source.startswith(WEBCAM) or Path(source).suffix.lower() in SUFFIXES


def check_sources(sources: Sequence[str]) -> None:
    """Refuse wrong inputs before anything is written.

    Raises:
        DataError: a video is missing, two would have the same name, or a webcam has no number.
    """
    names: dict[str, str] = {}
    for source in sources:
        if source.startswith(WEBCAM):
            if not source.removeprefix(WEBCAM).isdecimal():
                raise DataError(f"--images {source}: expected webcam:0, webcam:1, …")
        elif not Path(source).expanduser().is_file():
            raise DataError(f"--images {source}: no such file")
        other = names.setdefault(_name(source), source)
        if other != source:
            raise DataError(
                f"{other} and {source} would both be called {_name(source)}.mp4 in the results: "
                "rename one, or treat them one after the other with different --out folders"
            )


def segment_videos(
    films: Sequence[str],
    out: Path,
    segmenter: Segmenter,
    opacity: float,
    *,
    masks: bool = False,
    values: Sequence[int] | None = None,
) -> list[str]:
    """Write videos as `segment_video` does; say which are done.

    Returns:
        A sentence for each that could not be read to its end.

    Raises:
        OSError: as `segment_video`.
    """
    problems = []
    for film in films:
        try:
            path = segment_video(film, out, segmenter, opacity, masks=masks, values=values)
            cut = None if film.startswith(WEBCAM) else cut_short(film, out)
        except DataError as error:
            problems.append(str(error))
            print(error, file=sys.stderr)
        else:
            print(f"Video {path}" if path else f"{film} is done already", flush=True)
            if cut:
                problems.append(cut)
                print(cut, file=sys.stderr)
    return problems


def segment_video(
    source: str,
    out: Path,
    segmenter: Segmenter,
    opacity: float,
    *,
    masks: bool = False,
    values: Sequence[int] | None = None,
) -> Path | None:
    """Write the video with its masks blended over it, at its size and frame rate, without sound.

    The progress bar shows frames a second. Only a film seen to its end gets its name: one that
    Ctrl-C stops is left as <name>.part.mp4, which can be played, and is begun anew next time. Of a
    webcam, Ctrl-C is the end, and each recording gets a name of its own.

    Args:
        source: a video file, or "webcam:<number>".
        out: folder of the result, <name>.mp4.
        segmenter: segments each frame.
        opacity: of the colors, 0…1.
        masks: write <name>_masks/000000.png, … too, palette PNGs of class indices.
        values: of these masks for each class, instead of the class indices.

    Returns:
        The path of the MP4; None if it was complete already.

    Raises:
        DataError: the source cannot be read.
        OSError: not all frames could be written.
    """
    live = source.startswith(WEBCAM)
    name = _name(source)
    if live:
        existing = {path.name for path in out.glob("*")}
        names = (f"{name}_{number}" if number > 1 else name for number in count(1))
        name = next(n for n in names if not {f"{n}.mp4", f"{n}.part.mp4", f"{n}_masks"} & existing)
    path, folder = out / f"{name}.mp4", out / f"{name}_masks"
    is_complete = path.exists() and (folder.is_dir() or not masks)
    if is_complete and (live or path.stat().st_mtime >= Path(source).expanduser().stat().st_mtime):
        return None
    film = _opened(source)
    rate = film.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate < 1000 else USUAL_RATE
    expected = int(film.get(cv2.CAP_PROP_FRAME_COUNT))
    out.mkdir(parents=True, exist_ok=True)
    part, folder_part = out / f"{name}.part.mp4", out / f"{name}_masks.part"
    shutil.rmtree(folder_part, ignore_errors=True)
    writer, written = None, 0
    frames = progress_bar(
        _frames(film, source),
        desc=name,
        total=expected if expected > 0 else None,
        unit=" frames",
    )
    try:
        for frame in frames:
            if writer is None:
                height, width = frame.shape[:2]
                tqdm.write(segmenter.cost((height, width)))
                codec = cv2.VideoWriter.fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(part), codec, rate, (width, height))
                if not writer.isOpened():  # OpenCV would take the frames and write none
                    raise DataError(f"{part} cannot be written: no MPEG-4 encoder, or no room")
            mask = segmenter(torch.from_numpy(frame))
            blended = overlay(frame, mask, segmenter.colors, opacity)
            if masks:
                save(
                    palette_image(mask, segmenter.colors, values),
                    folder_part / f"{written:06}.png",
                )
            writer.write(cv2.cvtColor(blended, cv2.COLOR_RGB2BGR))
            written += 1
    except KeyboardInterrupt:
        if not live or not written:
            tqdm.write(f"Stopped: the same command begins {name} anew")
            raise
    finally:  # after Ctrl-C too: a film without its end cannot be played
        film.release()
        if writer is not None:
            writer.release()
    _check_written(part, written)
    if written < expected and not live:
        tqdm.write(
            f"{source}: it claims {plural(expected, 'frame')}, of which {written} could be read"
        )
    if masks:
        shutil.rmtree(folder, ignore_errors=True)
        folder_part.rename(folder)
    return part.replace(path)


def cut_short(source: str, out: Path) -> str | None:
    """Return a sentence if the result in `out` lacks frames that the source claims, else None."""
    claimed, written = _frame_count(source), _frame_count(str(out / f"{_name(source)}.mp4"))
    if claimed - written <= max(2, MISCOUNTED * claimed):
        return None
    return (
        f"--images {source}: it is damaged or ends early: of the {claimed} frames that it claims, "
        f"{written} could be read, and the video holds no more"
    )


def _frame_count(source: str) -> int:
    film = _opened(source)
    number = int(film.get(cv2.CAP_PROP_FRAME_COUNT))
    film.release()
    return number


def _name(source: str) -> str:
    return source.replace(":", "") if source.startswith(WEBCAM) else Path(source).stem


def _opened(source: str) -> cv2.VideoCapture:
    live = source.startswith(WEBCAM)
    film = cv2.VideoCapture(
        int(source.removeprefix(WEBCAM)) if live else str(Path(source).expanduser())
    )
    if not film.isOpened():
        what = "no such camera" if live else "cannot be read as a video"
        raise DataError(f"--images {source}: {what}")
    return film


def _frames(film: cv2.VideoCapture, source: str) -> Iterator[np.ndarray]:
    """Yield the frames, (H,W,3) uint8 RGB, until the end."""
    number = 0
    while True:
        has_frame, frame = film.read()
        if not has_frame:
            break
        number += 1
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    if not number:
        raise DataError(f"--images {source}: not one frame can be read")


def _check_written(path: Path, number: int) -> None:
    """Refuse a video with fewer frames than were written: OpenCV does not report a full disk.

    It may have one more, written when Ctrl-C came.
    """
    film = cv2.VideoCapture(str(path))
    readable = int(film.get(cv2.CAP_PROP_FRAME_COUNT)) if film.isOpened() else 0
    film.release()
    if readable < number:
        what = f"only {readable} of {number} frames could be written (is the disk full?)"
        raise OSError(errno.ENOSPC, what, str(path))
