"""Progress bars, which are lines where stderr is no terminal. Every part may import this.

A log file or a pipe gets a line now and then, without the characters that draw a bar over.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
SECONDS = 15  # between two lines
LARGE = 100_000_000  # bytes of a file that takes long to read through
CHUNK = 1 << 22  # bytes read at once


class Lines:
    """A stream that gets each state of a bar as a line of its own, each count once.

    Args:
        stream: to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.last = ""

    def write(self, text: str) -> None:
        """Write a line, unless it is empty or counts what the last one counted."""
        line = CONTROL.sub("", text).strip()
        count = line.partition("[")[0]  # what follows are times and rates
        if line and count != self.last:
            self.stream.write(f"{line}\n")
            self.last = count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def progress_bar(iterable: Iterable | None = None, *, leave: bool = True, **options: Any) -> tqdm:
    """Return a progress bar on stderr; of several processes of a run the first one shows it.

    Args:
        iterable: passed through; None for one that is updated by hand.
        leave: whether it stays on the screen when it is done.
        options: of tqdm.
    """
    if sys.stderr is None or os.environ.get("LOCAL_RANK", "0") != "0":  # closed; or not the first
        options["disable"] = True
    elif not sys.stderr.isatty():
        options["file"] = Lines(sys.stderr)
        options |= {"mininterval": SECONDS, "maxinterval": SECONDS}
        if not leave:
            options["delay"] = SECONDS  # what is done soon is not told of at all
    return tqdm(iterable, leave=leave, dynamic_ncols=True, **options)


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file in hexadecimal digits; of a large one with a bar.

    Args:
        path: of the file.
        algorithm: as hashlib names it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < LARGE:
            return hashlib.file_digest(file, algorithm).hexdigest()
        digest = hashlib.new(algorithm)
        title = f"checking {path.name}"
        with progress_bar(
            desc=title, total=size, unit="B", unit_scale=True, leave=False, delay=1
        ) as progress:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                progress.update(len(chunk))
        return digest.hexdigest()
