"""Folders and lists that are there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deeplab_lit.whole import whole_file


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when the block ends without an error.

    Until then it is called <name>.part and stays there, so that the next run goes on in it.
    """
    part = path.with_name(f"{path.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    yield part
    part.rename(path)


def write_list(path: Path, ids: list[str]) -> None:
    """One image name a line."""
    with whole_file(path) as temporary:
        temporary.write_text("".join(f"{id}\n" for id in ids), "utf-8")
