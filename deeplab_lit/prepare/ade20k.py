"""ADE20K as the scene parsing challenge of 2016 released it: 150 classes."""

from deeplab_lit.prepare.archive import under, unpack
from deeplab_lit.prepare.source import Archive, Source
from deeplab_lit.prepare.whole import atomic_folder

# SHA-1 as in GluonCV's scripts/datasets/ade20k.py
ADE20K = Archive(
    "ADEChallengeData2016.zip",
    "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    "sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
)
OFFICIAL = {"training": 20_210, "validation": 2000}


def prepare_ade20k(source: Source) -> str:
    """ADE20K, the challenge's 150 classes: 20,210 training and 2,000 validation images.

    0.9 GB are downloaded. Nothing is converted: labels become class indices when they are read.
    """
    folder = source.root / "ADEChallengeData2016"
    if not folder.is_dir():
        archive = source.fetch(ADE20K)
        with atomic_folder(folder) as part:
            unpack(archive, part, under("ADEChallengeData2016"))
            for kind in ("images", "annotations"):
                found = {s: sum(1 for _ in (part / kind / s).glob("*.*")) for s in OFFICIAL}
                source.expect(f"ADE20K ({kind})", found, OFFICIAL)
    return f"--data ADE20K --data.root {folder}"
