"""PASCAL-Context (Mottaghi et al., 2014): the authors' 459 labels to the usual 59 classes."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np

from deeplab_lit.data.image import DataError
from deeplab_lit.data.pascal_context import CLASSES
from deeplab_lit.data.paths import lines_of, listed_ids
from deeplab_lit.prepare.archive import unpack
from deeplab_lit.prepare.masks import convert, read_mat
from deeplab_lit.prepare.source import Archive, Source
from deeplab_lit.prepare.voc import devkit
from deeplab_lit.prepare.whole import atomic_folder, write_list

LABELS = Archive(
    "trainval.tar.gz", "https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz"
)
OFFICIAL = {"train": 4998, "val": 5105}


def prepare_pascal_context(source: Source) -> str:
    """PASCAL-Context: 59 classes and background on VOC 2010's images.

    1.3 GB and 31 MB are downloaded. What is none of the 59 classes is background.
    """
    folder = devkit(source, 2010)
    lists, masks = folder / "ImageSets/SegmentationContext", folder / "SegmentationClassContext"
    if not (lists / "val.txt").is_file():
        raw = folder / "PASCAL-Context"
        if not raw.is_dir():
            archive = source.fetch(LABELS)
            with atomic_folder(raw) as part:
                unpack(archive, part, _wanted)
        splits = {}
        for split in OFFICIAL:
            ids = listed_ids(folder / f"ImageSets/Main/{split}.txt")
            splits[split] = [id for id in ids if (raw / f"{id}.mat").is_file()]
        found = {split: len(ids) for split, ids in splits.items()}
        source.expect("PASCAL-Context", found, OFFICIAL)
        if not masks.is_dir():
            read = partial(read_context, table=class_table(raw / "labels.txt"))
            with atomic_folder(masks) as part:
                ids = splits["train"] + splits["val"]
                jobs = [(raw / f"{id}.mat", part / f"{id}.png") for id in ids]
                convert(jobs, read, "converting PASCAL-Context")
        for split, ids in splits.items():
            write_list(lists / f"{split}.txt", ids)
        shutil.rmtree(raw)
    return f"--data PascalContext --data.root {source.root}"


def class_table(path: Path) -> np.ndarray:
    """Label of labels.txt ("2: aeroplane") → class index, (values,) uint8; 0 for all others.

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
    missing = [name for name in CLASSES[1:] if name not in labels]
    if missing:
        raise DataError(f"{path} does not list the classes {', '.join(missing)}")
    table = np.zeros(max(labels.values()) + 1, np.uint8)
    for index, name in enumerate(CLASSES[1:], 1):
        table[labels[name]] = index
    return table


def read_context(path: Path, table: np.ndarray) -> np.ndarray:
    """The classes of a LabelMap, (H,W) uint8.

    Raises:
        DataError: it cannot be read, or has a label that the table does not have.
    """
    labels = read_mat(path, "LabelMap")
    if labels.min() < 0 or labels.max() >= len(table):
        raise DataError(
            f"{path}: labels {labels.min()}…{labels.max()}, expected 0…{len(table) - 1}"
        )
    return table[labels]


def _wanted(name: str) -> str | None:
    file = name.rpartition("/")[2]
    return file if file == "labels.txt" or file.endswith(".mat") else None
