"""PASCAL VOC's development kits, and VOC 2012 with SBD (Hariharan et al., 2011).

SBD has masks for the images of VOC 2012 that have none.
"""

import shlex
import shutil
from pathlib import Path

from deeplab_lit.atomic import atomic_folder, atomic_write
from deeplab_lit.data.image import DataError, read_mask
from deeplab_lit.data.paths import listed_ids
from deeplab_lit.prepare.archives import Archive, Source
from deeplab_lit.prepare.label_maps import convert, write_list
from deeplab_lit.prepare.unpack import under, unpack
from deeplab_lit.text import plural

# addresses and checksums are those of torchvision.datasets.VOCSegmentation
DEVKITS = {
    2010: Archive(
        "VOCtrainval_03-May-2010.tar",
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
        "md5:da459979d0c395079b5c75ee67908abb",
    ),
    2012: Archive(
        "VOCtrainval_11-May-2012.tar",
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "md5:6cd6e144f989b92b3379bac3b3de84fd",
    ),
}
# address and checksum are those of torchvision.datasets.SBDataset
SBD = Archive(
    "benchmark.tgz",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "md5:82b4d87ceb2ed10f6038a1cba92111cb",
)
SBD_IMAGES = {
    "VOC train": 1464,
    "VOC val": 1449,
    "masks of SBD": 11_355,
    "train_aug": 10_582,
    "trainval_aug": 12_031,
}


def prepare_voc(source: Source) -> str:
    """Put VOC 2012 with SBD in place; return the options that train on it.

    Raises:
        DataError: an archive cannot be had, or is not the official one.
    """
    folder = devkit(source, 2012)
    lists = folder / "ImageSets/Segmentation"
    add_sbd(source, folder, listed_ids(lists / "train.txt"), listed_ids(lists / "val.txt"))
    return f"--data VOC --data.root {shlex.quote(str(source.root))} --data.train_split train_aug"


def devkit(source: Source, year: int) -> Path:
    """Return the folder VOCdevkit/VOC<year>, unpacked if it is not there yet.

    Raises:
        DataError: the archive cannot be had, or is not the official one.
    """
    folder = source.root / f"VOCdevkit/VOC{year}"
    if not folder.is_dir():
        archive = source.fetch(DEVKITS[year])
        with atomic_folder(folder) as part:
            unpack(archive, part, under(f"VOC{year}"))
    return folder


def add_sbd(source: Source, devkit: Path, train: list[str], val: list[str]) -> None:
    """Write SegmentationClassAug/ and the lists train_aug.txt and trainval_aug.txt (with SBD).

    train_aug is (SBD ∪ VOC train) − VOC val. Images that VOC has labeled keep VOC's masks, with
    their void borders; SBD's masks have none.

    Args:
        source: where the archive of SBD comes from.
        devkit: the folder VOC2012.
        train: ids of VOC's train list.
        val: ids of VOC's val list.

    Raises:
        DataError: the numbers are not the published ones, images are missing, or the archive
            cannot be had.
    """
    lists, aug = devkit / "ImageSets/Segmentation", devkit / "SegmentationClassAug"
    if aug.is_dir() and (lists / "trainval_aug.txt").is_file():
        return
    unpacked = devkit / "SBD"
    if not unpacked.is_dir():
        archive = source.fetch(SBD)
        with atomic_folder(unpacked) as part:
            unpack(archive, part, under("dataset/cls"))
    labeled = {*train, *val}
    sbd = sorted(path.stem for path in unpacked.glob("*.mat"))
    both = sorted(labeled | {*sbd})
    train_aug = sorted({*both} - {*val})
    numbers = map(len, (train, val, sbd, train_aug, both))
    counts = dict(zip(SBD_IMAGES, numbers, strict=True))
    source.expect("PASCAL VOC 2012 with SBD", counts, SBD_IMAGES)
    needed = [f"JPEGImages/{id}.jpg" for id in both]
    needed += [f"SegmentationClass/{id}.png" for id in sorted(labeled)]
    missing = [name for name in needed if not (devkit / name).is_file()]
    if missing:
        raise DataError(
            f"{devkit} lacks {plural(len(missing), 'file')} of images that SBD or VOC has labeled"
            f": {', '.join(missing[:3])}, …; delete the folder, and it is unpacked again"
        )
    if not aug.is_dir():
        with atomic_folder(aug) as part:
            for id in sorted(labeled):
                with atomic_write(part / f"{id}.png") as temporary:
                    shutil.copyfile(devkit / f"SegmentationClass/{id}.png", temporary)
            others = [id for id in sbd if id not in labeled]
            jobs = [(unpacked / f"{id}.mat", part / f"{id}.png") for id in others]
            convert(jobs, read_mask, "converting SBD")
    write_list(lists / "train_aug.txt", train_aug)
    write_list(lists / "trainval_aug.txt", both)
    shutil.rmtree(unpacked)
