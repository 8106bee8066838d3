"""PASCAL-Person-Part (Chen et al.), as the authors of DeepLab released it."""

import shutil
from pathlib import Path

import numpy as np

from deeplab_lit.data.classes import voc_color
from deeplab_lit.data.decode import UNREADABLE, opened
from deeplab_lit.data.image import DataError, read_colors, read_mask
from deeplab_lit.data.paths import listed_ids
from deeplab_lit.data.person_part import CLASSES
from deeplab_lit.prepare.archive import under, unpack
from deeplab_lit.prepare.masks import convert
from deeplab_lit.prepare.source import Archive, Source
from deeplab_lit.prepare.voc import devkit
from deeplab_lit.prepare.whole import atomic_folder, write_list

LABELS = Archive("pascal_person_part.zip", "http://liangchiehchen.com/data/pascal_person_part.zip")
OFFICIAL = {"train": 1716, "val": 1817}


def prepare_person_part(source: Source) -> str:
    """PASCAL-Person-Part: six parts of people and background on VOC 2010's images.

    1.3 GB are downloaded, and the masks and lists that L.-C. Chen released
    (pascal_person_part.zip).
    """
    folder = devkit(source, 2010)
    lists, masks = folder / "ImageSets/SegmentationPersonPart", folder / "SegmentationPersonPart"
    if not (lists / "val.txt").is_file():
        raw = folder / "pascal_person_part"
        if not raw.is_dir():
            archive = source.fetch(LABELS)
            with atomic_folder(raw) as part:
                unpack(archive, part, under("pascal_person_part"))
        official = raw / "pascal_person_part_trainval_list"
        splits = {split: listed_ids(official / f"{split}_id.txt") for split in OFFICIAL}
        found = {split: len(ids) for split, ids in splits.items()}
        source.expect("PASCAL-Person-Part", found, OFFICIAL)
        if not masks.is_dir():
            with atomic_folder(masks) as part:
                ids = splits["train"] + splits["val"]
                gt = raw / "pascal_person_part_gt"
                jobs = [(gt / f"{id}.png", part / f"{id}.png") for id in ids]
                convert(jobs, read_parts, "converting PASCAL-Person-Part")
        for split, ids in splits.items():
            write_list(lists / f"{split}.txt", ids)
        shutil.rmtree(raw)
    return f"--data PersonPart --data.root {source.root}"


def read_parts(path: Path) -> np.ndarray:
    """The parts in a released mask, (H,W) uint8 in 0…6, from indices or from PASCAL's colors.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    try:
        with opened(path.read_bytes()) as image:
            colored = image.mode == "RGB"
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a mask ({error})") from error
    if colored:
        colors = read_colors(path)
        mask = np.full(colors.shape, 255, np.uint8)
        for index in range(len(CLASSES)):
            red, green, blue = voc_color(index)
            mask[colors == (blue << 16 | green << 8 | red)] = index
    else:
        mask = read_mask(path)
    if mask.max() >= len(CLASSES):
        raise DataError(f"{path}: expected the values 0…6 or PASCAL's first seven colors")
    return mask
