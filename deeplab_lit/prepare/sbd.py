"""SBD (Hariharan et al., 2011): masks for the images of VOC 2012 that have none."""

import shutil
from pathlib import Path

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.image import DataError, read_mask
from deeplab_lit.prepare.archive import under, unpack
from deeplab_lit.prepare.masks import convert
from deeplab_lit.prepare.source import Archive, Source
from deeplab_lit.prepare.whole import atomic_folder, write_list
from deeplab_lit.text import plural

# address and checksum are those of torchvision.datasets.SBDataset
SBD = Archive(
    "benchmark.tgz",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "md5:82b4d87ceb2ed10f6038a1cba92111cb",
)
OFFICIAL = {
    "VOC train": 1464,
    "VOC val": 1449,
    "masks of SBD": 11_355,
    "train_aug": 10_582,
    "trainval_aug": 12_031,
}


def add_sbd(source: Source, devkit: Path, train: list[str], val: list[str]) -> None:
    """Write SegmentationClassAug/ and the lists train_aug.txt and trainval_aug.txt.

    train_aug is (SBD ∪ VOC train) − VOC val. Images that VOC has labeled keep VOC's masks, with
    their void borders; SBD's masks have none.

    Args:
        source: of SBD.
        devkit: the folder VOC2012.
        train: ids of VOC's train list.
        val: ids of VOC's val list.

    Raises:
        DataError: the numbers are not the published ones, or images are missing.
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
    source.expect("PASCAL VOC 2012 with SBD", dict(zip(OFFICIAL, numbers, strict=True)), OFFICIAL)
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
            own = [id for id in sbd if id not in labeled]
            jobs = [(unpacked / f"{id}.mat", part / f"{id}.png") for id in own]
            convert(jobs, read_mask, "converting SBD")
    write_list(lists / "train_aug.txt", train_aug)
    write_list(lists / "trainval_aug.txt", both)
    shutil.rmtree(unpacked)
