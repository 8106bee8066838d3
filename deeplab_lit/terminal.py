"""What is shown on a terminal: colors, which no file gets, and commands to be typed next.

The lowest part of the package: it imports nothing of it, and neither torch nor Lightning.
"""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TextIO

BOLD, RED, YELLOW, PLAIN = "\x1b[1m", "\x1b[1;31m", "\x1b[33m", "\x1b[0m"
# words of a line → their color; of "Next" the command behind it
COLORS = {
    r"^error:": RED,
    r"^WARNING:": YELLOW,
    r"(?<=^Next {8}).+": BOLD,
    r"\bmIoU \d[\d.]* %": BOLD,
}


def colored(text: str, stream: TextIO | None) -> str:
    """Return lines with their few colors, if a stream shows them; else as they are.

    It does so if it is a terminal, unless the variable NO_COLOR is set (https://no-color.org) or
    TERM is "dumb".

    Args:
        text: one line or several.
        stream: to which they go; None: it is closed.
    """
    if not shows_colors(stream):
        return text
    for words, color in COLORS.items():
        text = re.sub(words, rf"{color}\g<0>{PLAIN}", text, flags=re.MULTILINE)
    return text


def shows_colors(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal that shows colors, and nobody has refused them."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    is_old = os.name == "nt" and "WT_SESSION" not in os.environ  # a console that shows the codes
    if stream is None or refused or is_old:
        return False
    try:
        return stream.isatty()
    except ValueError:  # it was closed
        return False


def command(module: str, *arguments: str) -> str:
    """Return a command line that runs a module from here, to be copied into a shell."""
    return shlex.join([_python(), "-m", module, *arguments])


def python_line(code: str) -> str:
    """Return a command line that runs a line of Python, to be copied into a shell."""
    return shlex.join([_python(), "-c", code])


def from_here(path: str | Path) -> str:
    """Return a path as the current folder sees it, if it lies below; else as it is."""
    path = str(path)
    return os.path.relpath(path) if path.startswith(str(Path.cwd())) else path


def _python() -> str:
    """Return how to call this interpreter from here."""
    python = shutil.which("python")
    if python and Path(python).samefile(sys.executable):
        return "python"
    return from_here(sys.executable)
