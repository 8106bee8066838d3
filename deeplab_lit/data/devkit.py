"""PASCAL's development kit: images, masks and lists of one year's VOC folder."""

from pathlib import Path

from deeplab_lit.data.dataset import FileSplit, Pair
from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import existing


def find_devkit(root: Path, year: int) -> Path:
    """The folder VOC<year>, given itself, VOCdevkit, or the folder that holds VOCdevkit.

    Raises:
        DataError: it is not there.
    """
    name = f"VOC{year}"
    for folder in (root, root / name, root / "VOCdevkit" / name):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise DataError(
        f"--data.root {root}: no PASCAL VOC {year} there (no JPEGImages/, {name}/JPEGImages/ or "
        f"VOCdevkit/{name}/JPEGImages/). Unpack the official VOCtrainval archive of {year}, and "
        "give its VOCdevkit folder."
    )


def listed_ids(path: Path) -> list[str]:
    """The image names of a list, one a line, in its order.

    Raises:
        DataError: no such list, or one that holds something else.
    """
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise DataError(f"{path} does not exist; splits there: {there}")
    ids = path.read_text("utf-8", errors="replace").split("\n")
    ids = [id.strip() for id in ids if id.strip()]
    odd = next((id for id in ids if len(id.split()) > 1 or "/" in id), None)
    if odd or len(set(ids)) < len(ids):
        raise DataError(
            f"{path}: expected an image name a line, each once"
            + (f", found {odd!r}" if odd else ", found some twice")
        )
    return ids


def devkit_pairs(devkit: Path, masks: str, ids: list[str]) -> list[Pair]:
    """JPEGImages/<id>.jpg with `masks`/<id>.png, whether they exist or not."""
    images = devkit / "JPEGImages"
    return [Pair(id, images / f"{id}.jpg", devkit / masks / f"{id}.png") for id in ids]


def devkit_split(devkit: Path, lists: str, masks: str, name: str, num_classes: int) -> FileSplit:
    """The images listed in ImageSets/`lists`/`name`.txt, with `masks`/<id>.png of class indices.

    Raises:
        DataError: the list or files of it are missing.
    """
    ids = listed_ids(devkit / "ImageSets" / lists / f"{name}.txt")
    return FileSplit(existing(devkit_pairs(devkit, masks, ids)), num_classes)
