"""GTA5, "Playing for Data" (Richter et al., 2016): twenty archives, and the authors' split."""

import shlex

from deeplab_lit.atomic import atomic_folder
from deeplab_lit.data.image import DataError
from deeplab_lit.prepare.archives import Archive, Source
from deeplab_lit.prepare.unpack import under, unpack

FROM_GAMES = "https://download.visinf.tu-darmstadt.de/data/from_games"
PARTS = range(1, 11)  # 01_images.zip … 10_images.zip, and as many of labels
SPLIT = Archive("read_mapping.zip", f"{FROM_GAMES}/code/read_mapping.zip")
SPLIT_FILE = "split.mat"
FRAMES = 24_966


def prepare_gta5(source: Source) -> str:
    """Put GTA5 in place; return its options.

    Raises:
        DataError: an archive cannot be had, or the numbers of files are not the official ones.
    """
    for kind in ("images", "labels"):
        folder = source.root / kind
        if folder.is_dir():
            continue
        with atomic_folder(folder) as part:
            for number in PARTS:
                name = f"{number:02}_{kind}.zip"
                archive = source.fetch(Archive(name, f"{FROM_GAMES}/data/{name}"))
                unpack(archive, part, under(kind))
            count = sum(1 for _ in part.glob("*.png"))
            source.expect(f"GTA5 ({kind})", {kind: count}, {kind: FRAMES})
    options = f"--data GTA5 --data.root {shlex.quote(str(source.root))}"
    if not (source.root / SPLIT_FILE).is_file():
        try:
            unpack(source.fetch(SPLIT), source.root, _split_file)
        except DataError as error:
            raise DataError(
                f"{error}\nImages and labels are in place, and {options} trains on all of them; "
                f"only the splits train, val and test need {SPLIT_FILE}, out of {SPLIT.name}"
            ) from error
    return options


def _split_file(name: str) -> str | None:
    """Choose split.mat (see `unpack`)."""
    return SPLIT_FILE if name.rpartition("/")[2] == SPLIT_FILE else None
