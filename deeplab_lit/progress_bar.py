"""Progress bars, which are lines where stderr is no terminal. Every part may import this.

A log file or a pipe gets a line now and then, without the characters that draw a bar over.
"""

import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
SECONDS = 15  # between two lines


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
    """Return a progress bar on stderr.

    Args:
        iterable: passed through; None for one that is updated by hand.
        leave: whether it stays on the screen when it is done.
        options: of tqdm.
    """
    if sys.stderr is None:  # it was closed
        options["disable"] = True
    elif not sys.stderr.isatty():
        options["file"] = Lines(sys.stderr)
        options |= {"mininterval": SECONDS, "maxinterval": SECONDS}
        if not leave:
            options["delay"] = SECONDS  # what is done soon is not told of at all
    return tqdm(iterable, leave=leave, dynamic_ncols=True, **options)
