"""Cityscapes: the two official archives, which take an account to download."""

from deeplab_lit.prepare.archive import under, unpack
from deeplab_lit.prepare.source import Archive, Source
from deeplab_lit.prepare.whole import atomic_folder

PAGE = "https://www.cityscapes-dataset.com/downloads (free account)"
PARTS = {  # name of the archive and of its folder → the files that count, and how many there are
    "leftImg8bit": ("*/*_leftImg8bit.png", {"train": 2975, "val": 500, "test": 1525}),
    "gtFine": ("*/*_gtFine_labelIds.png", {"train": 2975, "val": 500}),
}


def prepare_cityscapes(source: Source) -> str:
    """Cityscapes, fine annotations, from the two zips that you put into --root.

    They are leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB) from
    https://www.cityscapes-dataset.com/downloads, where they take a free account. The label ids
    become training ids when they are read, so nothing is converted.
    """
    for name, (files, official) in PARTS.items():
        folder = source.root / name
        if folder.is_dir():
            continue
        archive = source.fetch(Archive(f"{name}_trainvaltest.zip", page=PAGE))
        with atomic_folder(folder) as part:
            unpack(archive, part, under(name))
            found = {split: sum(1 for _ in (part / split).glob(files)) for split in official}
            source.expect(f"Cityscapes ({name})", found, official)
    return f"--data Cityscapes --data.root {source.root}"
