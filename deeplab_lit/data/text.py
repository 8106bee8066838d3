"""Text files that users write: names of classes, lists of images."""

from pathlib import Path

from deeplab_lit.data.image import DataError


def read_text(path: Path) -> list[str]:
    """The lines of a UTF-8 file without spaces around them, with or without a byte order mark.

    Raises:
        DataError: it is a folder, or no such text.
        OSError: it cannot be opened.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a text file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} is not UTF-8 (line {line} holds the byte 0x{error.object[error.start]:02x}; "
            "is it Latin-1 or UTF-16?): save it as UTF-8"
        ) from error
    return [line.strip() for line in text.splitlines()]


def lines_of(path: Path) -> list[str]:
    """As `read_text`, without the empty lines."""
    return [line for line in read_text(path) if line]
