"""The configurations that come with the package, found from every folder by their usual names.

`configs/camvid.yaml` is the file of that name here; where there is none, it is the package's. In a
clone these lie beside the package, in an installed package inside it.
"""

import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from deeplab_lit.text import say

PACKAGE = Path(__file__).parent
PLACES = (PACKAGE / "configs", PACKAGE.parent / "configs")
CONFIGS = next((place for place in PLACES if place.is_dir()), PLACES[0])


@cache
def shipped() -> Mapping[str, Path]:
    """Return name → file of the configurations in the package: "configs/camvid.yaml" and others."""
    return {f"configs/{path.relative_to(CONFIGS).as_posix()}": path
            for path in sorted(CONFIGS.rglob("*.yaml"))}  # fmt: skip


def located(name: str) -> str:
    """Return the file that a name stands for: what is there wins, else the package's; or `name`.

    That it is the package's is said on stderr, once in a process.

    Args:
        name: of a configuration, as typed; anything else is returned as it is.
    """
    path = shipped().get(name.removeprefix("./").replace(os.sep, "/"))
    if path is None or os.path.lexists(name):
        return name
    _tell(name, path)
    return str(path)


@cache
def _tell(name: str, path: Path) -> None:
    say(f"{name} is not in this folder, so the package's is read: {path}", file=sys.stderr)


def near(name: str) -> str:
    """Return the end of a sentence on a file that does not exist: ": did you mean …?", or "".

    Args:
        name: of the file, as typed. First its neighbors are looked at, then the package's files.
    """
    path = Path(name)
    is_folder = os.path.isdir(path.parent)  # noqa: PTH112 - its name may be no name at all
    siblings = {file.stem: str(file) for file in path.parent.glob("*.y*ml")} if is_folder else {}
    names = [siblings[stem] for stem in get_close_matches(path.stem, siblings, 1)]
    if not names:
        names = get_close_matches(path.as_posix(), shipped(), 2)
    if not names:
        files = {file.name: typed for typed, file in shipped().items()}
        names = [files[file] for file in get_close_matches(path.name, files, 1)]
    return f": did you mean {' or '.join(names)}?" if names else ""
