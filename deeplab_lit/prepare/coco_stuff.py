"""COCO-Stuff (Caesar et al., 2018): the first 10,000 images, and all of COCO 2017."""

import shlex
from pathlib import Path

import numpy as np

from deeplab_lit.atomic import atomic_folder
from deeplab_lit.data.coco_stuff import LISTS, NAMES
from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import listed_ids
from deeplab_lit.prepare.archives import Archive, Source
from deeplab_lit.prepare.label_maps import convert, read_mat
from deeplab_lit.prepare.unpack import under, unpack

COCO = "http://images.cocodataset.org/zips"
COCO_STUFF = "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset"
TEN_K = Archive("cocostuff-10k-v1.1.zip", f"{COCO_STUFF}/cocostuff-10k-v1.1.zip")
MAPS = Archive("stuffthingmaps_trainval2017.zip", f"{COCO_STUFF}/stuffthingmaps_trainval2017.zip")
# SHA-1 as in GluonCV's scripts/datasets/mscoco.py
IMAGES = {
    "train2017": Archive(
        "train2017.zip", f"{COCO}/train2017.zip", "sha1:10ad623668ab00c62c096f0ed636d6aff41faca5"
    ),
    "val2017": Archive(
        "val2017.zip", f"{COCO}/val2017.zip", "sha1:4950dc9d00dbe1c933ee0170f5797584351d2a41"
    ),
}
OFFICIAL_10K = {"train": 9000, "val": 1000}
OFFICIAL_164K = {"train2017": 118_287, "val2017": 5000}


def prepare_coco_stuff_10k(source: Source) -> str:
    """Put COCO-Stuff 10k in place; return its options.

    Raises:
        DataError: the archive cannot be had, is not the official one, or has another label.
    """
    folder = source.root / "cocostuff-10k"
    if not folder.is_dir():
        archive = source.fetch(TEN_K)
        with atomic_folder(folder) as part:
            for name in ("images", "annotations", "imageLists"):
                unpack(archive, part, under(name, to=name))
            splits = {split: listed_ids(part / f"imageLists/{LISTS[split]}.txt") for split in LISTS}
            counts = {split: len(ids) for split, ids in splits.items()}
            source.expect("COCO-Stuff 10k", counts, OFFICIAL_10K)
            masks = part / "annotations"
            jobs = [(path, path.with_suffix(".png")) for path in sorted(masks.glob("*.mat"))]
            convert(jobs, read_labels, "converting COCO-Stuff")
            for annotation, _ in jobs:
                annotation.unlink()
    return f"--data CocoStuff10k --data.root {shlex.quote(str(folder))}"


def prepare_coco_stuff_164k(source: Source) -> str:
    """Put COCO-Stuff 164k, all of COCO 2017, in place; return its options.

    Raises:
        DataError: an archive cannot be had, or is not the official one.
    """
    folder = source.root / "cocostuff-164k"
    if not folder.is_dir():
        maps = source.fetch(MAPS)
        with atomic_folder(folder) as part:
            for split, archive in IMAGES.items():
                unpack(source.fetch(archive), part, under(split, to=f"images/{split}"))
                unpack(maps, part, under(split, to=f"annotations/{split}"))
            for kind in ("images", "annotations"):
                counts = {s: sum(1 for _ in (part / kind / s).iterdir()) for s in OFFICIAL_164K}
                source.expect(f"COCO-Stuff 164k ({kind})", counts, OFFICIAL_164K)
    return f"--data CocoStuff164k --data.root {shlex.quote(str(folder))}"


def read_labels(path: Path) -> np.ndarray:
    """Read the label map S, 0 unlabeled and 1…182, as 0…181 and 255 (void), (H,W) uint8.

    Raises:
        DataError: it cannot be read, or has other labels.
    """
    labels = read_mat(path, "S")
    if labels.min() < 0 or labels.max() > len(NAMES):
        raise DataError(f"{path}: labels {labels.min()}…{labels.max()}, expected 0…{len(NAMES)}")
    return (labels.astype(np.int16) - 1).astype(np.uint8)  # −1 wraps to 255
