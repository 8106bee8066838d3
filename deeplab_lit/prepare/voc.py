"""PASCAL VOC's development kits, and VOC 2012 with SBD."""

from pathlib import Path

from deeplab_lit.data.paths import listed_ids
from deeplab_lit.prepare.archive import under, unpack
from deeplab_lit.prepare.sbd import add_sbd
from deeplab_lit.prepare.source import Archive, Source
from deeplab_lit.prepare.whole import atomic_folder

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


def devkit(source: Source, year: int) -> Path:
    """The folder VOCdevkit/VOC<year>, unpacked if it is not there yet."""
    folder = source.root / f"VOCdevkit/VOC{year}"
    if not folder.is_dir():
        archive = source.fetch(DEVKITS[year])
        with atomic_folder(folder) as part:
            unpack(archive, part, under(f"VOC{year}"))
    return folder


def prepare_voc(source: Source) -> str:
    """PASCAL VOC 2012 with SBD: train, val, trainval, train_aug, trainval_aug.

    2.0 and 1.4 GB are downloaded.
    """
    folder = devkit(source, 2012)
    lists = folder / "ImageSets/Segmentation"
    add_sbd(source, folder, listed_ids(lists / "train.txt"), listed_ids(lists / "val.txt"))
    return f"--data VOC --data.root {source.root} --data.train_split train_aug"
