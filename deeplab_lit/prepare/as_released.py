"""Data sets that are used as they were released: ADE20K and Cityscapes."""

from deeplab_lit.atomic import atomic_folder
from deeplab_lit.prepare.archives import Archive, Source
from deeplab_lit.prepare.unpack import under, unpack

# SHA-1 as in GluonCV's scripts/datasets/ade20k.py
ADE20K = Archive(
    "ADEChallengeData2016.zip",
    "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    "sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
)
ADE20K_IMAGES = {"training": 20_210, "validation": 2000}
CITYSCAPES_PAGE = "https://www.cityscapes-dataset.com/downloads (free account)"
CITYSCAPES_PARTS = {  # archive and folder → the files that count, and how many there are
    "leftImg8bit": ("*/*_leftImg8bit.png", {"train": 2975, "val": 500, "test": 1525}),
    "gtFine": ("*/*_gtFine_labelIds.png", {"train": 2975, "val": 500}),
}


def prepare_ade20k(source: Source) -> str:
    """Put ADE20K as released for the scene parsing challenge of 2016 in place; return its options.

    Raises:
        DataError: the archive cannot be had, or is not the official one.
    """
    folder = source.root / "ADEChallengeData2016"
    if not folder.is_dir():
        archive = source.fetch(ADE20K)
        with atomic_folder(folder) as part:
            unpack(archive, part, under("ADEChallengeData2016"))
            for kind in ("images", "annotations"):
                counts = {s: sum(1 for _ in (part / kind / s).glob("*.*")) for s in ADE20K_IMAGES}
                source.expect(f"ADE20K ({kind})", counts, ADE20K_IMAGES)
    return f"--data ADE20K --data.root {folder}"


def prepare_cityscapes(source: Source) -> str:
    """Put Cityscapes in place, from two archives that lie in the root; return its options.

    Raises:
        DataError: an archive is missing, or not the official one.
    """
    for name, (files, official) in CITYSCAPES_PARTS.items():
        folder = source.root / name
        if folder.is_dir():
            continue
        archive = source.fetch(Archive(f"{name}_trainvaltest.zip", page=CITYSCAPES_PAGE))
        with atomic_folder(folder) as part:
            unpack(archive, part, under(name))
            counts = {split: sum(1 for _ in (part / split).glob(files)) for split in official}
            source.expect(f"Cityscapes ({name})", counts, official)
    return f"--data Cityscapes --data.root {source.root}"
