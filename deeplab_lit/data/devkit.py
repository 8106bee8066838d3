"""PASCAL's development kit: images, masks and lists of one year's VOC folder."""

from collections import Counter
from pathlib import Path

from deeplab_lit.data.dataset import FileSplit, Pair
from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import existing
from deeplab_lit.data.text import lines_of
from deeplab_lit.text import first_few, plural


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
    ids = lines_of(path)
    odd = next((id for id in ids if len(id.split()) > 1 or "/" in id), None)
    if odd is not None:
        raise DataError(f"{path}: expected an image name a line, found {odd!r}")
    twice = [id for id, number in Counter(ids).items() if number > 1]
    if twice:
        raise DataError(
            f"{path}: expected an image name a line, each once; {plural(len(twice), 'name')} "
            f"{'is' if len(twice) == 1 else 'are'} there twice or more ({first_few(twice)}). "
            "Remove the repetitions"
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
