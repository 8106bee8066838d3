"""Files that are there whole or not at all. Every part of the package may import this.

Writers that share a folder do not disturb each other, and what fails leaves nothing behind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from deeplab_lit.errors import UserError


class WriteError(UserError, OSError):
    """Nothing can be written at a place; says where, why and what to do."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write to; what is there when the block ends becomes `path`.

    Args:
        path: may exist, and stays as it is until then; folders are made. The place has its name,
            in a folder of its own beside it.

    Raises:
        WriteError: nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=".", dir=path.parent)
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written ({error.strerror}): choose another place"
        ) from error
    with folder as place:
        yield Path(place) / path.name
        (Path(place) / path.name).replace(path)
