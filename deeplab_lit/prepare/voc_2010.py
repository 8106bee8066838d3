"""Other labels of VOC 2010's images: PASCAL-Context and PASCAL-Person-Part."""

import shlex
import shutil
from functools import partial
from pathlib import Path

import numpy as np

from deeplab_lit.atomic import atomic_folder
from deeplab_lit.data.classes import voc_color
from deeplab_lit.data.decode import UNREADABLE, opened
from deeplab_lit.data.devkit import CONTEXT_CLASSES, PART_CLASSES
from deeplab_lit.data.image import DataError, read_colors, read_mask
from deeplab_lit.data.paths import lines_of, listed_ids
from deeplab_lit.prepare.archives import Archive, Source
from deeplab_lit.prepare.label_maps import Reader, convert, read_mat, write_list
from deeplab_lit.prepare.unpack import under, unpack
from deeplab_lit.prepare.voc import devkit
from deeplab_lit.types import VOID

CONTEXT = Archive(
    "trainval.tar.gz", "https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz"
)
CONTEXT_IMAGES = {"train": 4998, "val": 5105}
PARTS = Archive("pascal_person_part.zip", "http://liangchiehchen.com/data/pascal_person_part.zip")
PARTS_IMAGES = {"train": 1716, "val": 1817}


def prepare_pascal_context(source: Source) -> str:
    """Put PASCAL-Context (Mottaghi et al., 2014) in place; return its options.

    The authors' 459 labels become the usual 59 classes; all others are background.

    Raises:
        DataError: an archive cannot be had, is not the official one, or holds another label.
    """
    folder = devkit(source, 2010)
    lists, masks = folder / "ImageSets/SegmentationContext", folder / "SegmentationClassContext"
    if not (lists / "val.txt").is_file():
        raw = folder / "PASCAL-Context"
        if not raw.is_dir():
            archive = source.fetch(CONTEXT)
            with atomic_folder(raw) as part:
                unpack(archive, part, _label_file)
        splits = {}
        for split in CONTEXT_IMAGES:
            ids = listed_ids(folder / f"ImageSets/Main/{split}.txt")
            splits[split] = [id for id in ids if (raw / f"{id}.mat").is_file()]
        _expect(source, "PASCAL-Context", splits, CONTEXT_IMAGES)
        read = partial(read_context, table=class_table(raw / "labels.txt"))
        _write_masks(raw, ".mat", masks, splits, read, "converting PASCAL-Context")
        _write_lists(lists, splits)
        shutil.rmtree(raw)
    return f"--data PascalContext --data.root {shlex.quote(str(source.root))}"


def prepare_person_part(source: Source) -> str:
    """Put PASCAL-Person-Part in place, masks and lists of L.-C. Chen; return its options.

    Raises:
        DataError: an archive cannot be had, is not the official one, or has an unknown mask.
    """
    folder = devkit(source, 2010)
    lists, masks = folder / "ImageSets/SegmentationPersonPart", folder / "SegmentationPersonPart"
    if not (lists / "val.txt").is_file():
        raw = folder / "pascal_person_part"
        if not raw.is_dir():
            archive = source.fetch(PARTS)
            with atomic_folder(raw) as part:
                unpack(archive, part, under("pascal_person_part"))
        official = raw / "pascal_person_part_trainval_list"
        splits = {split: listed_ids(official / f"{split}_id.txt") for split in PARTS_IMAGES}
        _expect(source, "PASCAL-Person-Part", splits, PARTS_IMAGES)
        annotations = raw / "pascal_person_part_gt"
        _write_masks(
            annotations, ".png", masks, splits, read_parts, "converting PASCAL-Person-Part"
        )
        _write_lists(lists, splits)
        shutil.rmtree(raw)
    return f"--data PersonPart --data.root {shlex.quote(str(source.root))}"


def class_table(path: Path) -> np.ndarray:
    """Read labels.txt ("2: aeroplane") as label → class index, (labels,) uint8; 0 for all others.

    Raises:
        DataError: a class is not listed there.
    """
    try:
        listed = [line.split(":") for line in lines_of(path)]
        pairs = [(name.replace(" ", ""), int(label)) for label, name in listed]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected lines such as '2: aeroplane' ({error})") from error
    labels = dict(pairs)
    if len(labels) < len(pairs) or not all(0 <= label < 2**16 for label in labels.values()):
        raise DataError(f"{path}: expected each name once, with a label from 0 to 65535")
    foreground = CONTEXT_CLASSES[1:]
    missing = [name for name in foreground if name not in labels]
    if missing:
        raise DataError(f"{path} does not list the classes {', '.join(missing)}")
    table = np.zeros(max(labels.values()) + 1, np.uint8)
    for index, name in enumerate(foreground, 1):
        table[labels[name]] = index
    return table


def read_context(path: Path, table: np.ndarray) -> np.ndarray:
    """Read the matrix LabelMap as class indices, (H,W) uint8.

    Raises:
        DataError: it cannot be read, or has a label that the table does not have.
    """
    labels = read_mat(path, "LabelMap")
    if labels.min() < 0 or labels.max() >= len(table):
        raise DataError(
            f"{path}: labels {labels.min()}…{labels.max()}, expected 0…{len(table) - 1}"
        )
    return table[labels]


def read_parts(path: Path) -> np.ndarray:
    """Read the parts in a released mask, (H,W) uint8 in 0…6, from indices or PASCAL's colors.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    num_classes = len(PART_CLASSES)
    try:
        with opened(path.read_bytes()) as image:
            is_colored = image.mode == "RGB"
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a mask ({error})") from error
    if is_colored:
        colors = read_colors(path)
        mask = np.full(colors.shape, VOID, np.uint8)
        for index in range(num_classes):
            red, green, blue = voc_color(index)
            mask[colors == (blue << 16 | green << 8 | red)] = index
    else:
        mask = read_mask(path)
    if mask.max() >= num_classes:
        raise DataError(f"{path}: expected the values 0…6 or PASCAL's first seven colors")
    return mask


def _label_file(name: str) -> str | None:
    """Choose labels.txt and the label maps, in one folder (see `unpack`)."""
    file = name.rpartition("/")[2]
    return file if file == "labels.txt" or file.endswith(".mat") else None


def _expect(
    source: Source, name: str, splits: dict[str, list[str]], official: dict[str, int]
) -> None:
    source.expect(name, {split: len(ids) for split, ids in splits.items()}, official)


def _write_masks(
    annotations: Path,
    suffix: str,
    masks: Path,
    splits: dict[str, list[str]],
    read: Reader,
    title: str,
) -> None:
    """Convert the annotations of all splits into a folder, unless it is complete already."""
    if masks.is_dir():
        return
    with atomic_folder(masks) as part:
        ids = [id for split in splits.values() for id in split]
        convert([(annotations / f"{id}{suffix}", part / f"{id}.png") for id in ids], read, title)


def _write_lists(folder: Path, splits: dict[str, list[str]]) -> None:
    for split, ids in splits.items():
        write_list(folder / f"{split}.txt", ids)
