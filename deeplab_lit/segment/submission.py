"""Label maps as the official test servers of PASCAL VOC and Cityscapes take them.

VOC 2012: palette PNGs of class indices, results/VOC2012/Segmentation/comp6_test_cls/<id>.png, in a
.tgz (comp6: other data than VOC's own was used for training, as ImageNet; see the devkit's manual).
Cityscapes: gray PNGs of label ids, not training ids, at the images' size, in a .zip; the evaluation
script finds them by <city>_<sequence>_<frame> at the start of their names.
"""

import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.cityscapes import LABEL_IDS
from deeplab_lit.data.classes import voc_palette
from deeplab_lit.data.decode import opened
from deeplab_lit.data.image import DataError, read_mask
from deeplab_lit.data.paths import listed_ids, matching
from deeplab_lit.text import plural

Server = Literal["voc", "cityscapes"]


@dataclass(frozen=True)
class Layout:
    """The files that a test server expects.

    Attributes:
        folder: of the label maps in the archive.
        image_suffix: what images are called behind their id.
        suffix: what label maps are called behind their id.
        values: the value in the files of each class, in the order of the classes.
        palette: whether the files have VOC's colors.
        archive: name of the archive.
    """

    folder: str
    image_suffix: str
    suffix: str
    values: tuple[int, ...]
    palette: bool
    archive: str


LAYOUTS = {
    "voc": Layout(
        "results/VOC2012/Segmentation/comp6_test_cls",
        "",
        ".png",
        tuple(range(21)),
        palette=True,
        archive="results.tgz",
    ),
    "cityscapes": Layout(
        "results",
        "_leftImg8bit",
        "_pred_labelIds.png",
        LABEL_IDS,
        palette=False,
        archive="results.zip",
    ),
}


class Submission:
    """The files of a submission to a test server.

    Args:
        server: that scores it.
        out: folder in which the server's own folders and the archive are made.
        images: the image files.
        listed: the official list, an id a line: images that it does not name are left out. None:
            all images.

    Attributes:
        images: whose label maps are submitted.

    Raises:
        DataError: a listed image is missing, or two images have the same id.
    """

    def __init__(
        self, server: Server, out: Path, images: Sequence[Path], listed: str | None = None
    ) -> None:
        self.server, self.out, self.layout = server, out, LAYOUTS[server]
        ids = {self.id_of(image): image for image in images}
        repeated = next((image for image in images if ids[self.id_of(image)] != image), None)
        if repeated is not None:
            id = self.id_of(repeated)
            raise DataError(f"{repeated} and {ids[id]} have the same id {id}")
        submitted = ids.keys() if listed is None else _read_list(Path(listed).expanduser())
        missing = [id for id in submitted if id not in ids]
        if missing:
            raise DataError(
                f"{listed}: {missing[0]} has no image ({len(missing)} of "
                f"{plural(len(submitted), 'listed id')}; {plural(len(images), 'image')})"
            )
        self.images = [ids[id] for id in submitted]

    def check_classes(self, number: int) -> None:
        """Refuse a network with another number of classes than the server's.

        Raises:
            DataError: they differ.
        """
        expected = len(self.layout.values)
        if number != expected:
            raise DataError(
                f"--submission {self.server}: the server wants {expected} classes, the network has "
                f"{number}"
            )

    def id_of(self, image: Path) -> str:
        """Return the id of an image file."""
        return image.stem.removesuffix(self.layout.image_suffix)

    def path(self, image: Path) -> Path:
        """Return the path of the label map of an image file."""
        return self.out / self.layout.folder / f"{self.id_of(image)}{self.layout.suffix}"

    def picture(self, mask: np.ndarray) -> Image.Image:
        """Turn class indices (H,W) uint8 into the server's label map."""
        picture = Image.fromarray(np.array(self.layout.values, np.uint8)[mask])
        if self.layout.palette:
            picture.putpalette(voc_palette())
        return picture

    def check(self) -> None:
        """Read the label maps of all images back, and compare them with the images.

        Raises:
            DataError: one is missing, too many, of another size than its image, or has a value
                that the server does not know; names the first.
        """
        expected = {self.path(image): image for image in self.images}
        folder = self.out / self.layout.folder
        extra = sorted(set(matching(folder, "*.png")) - expected.keys())
        if extra:
            raise DataError(f"{extra[0]}: no image is called so; remove it and start again")
        for path, image in expected.items():
            if not path.is_file():
                raise DataError(f"{path} is missing, the label map of {image}")
            values = read_mask(path)
            with opened(image.read_bytes()) as picture:
                size = picture.size
            if values.shape != size[::-1]:
                raise DataError(
                    f"{path} is {values.shape[1]}×{values.shape[0]} pixels, its image "
                    f"{size[0]}×{size[1]}: the server wants the size of the file as it is"
                )
            bad = np.setdiff1d(values, self.layout.values)
            if len(bad):
                raise DataError(f"{path} has the value {bad[0]}, which {self.server} does not know")

    def pack(self) -> Path:
        """Write the archive atomically, its files sorted by name, and return its path."""
        archive = self.out / self.layout.archive
        members = [
            (path, path.relative_to(self.out)) for path in sorted(map(self.path, self.images))
        ]
        with atomic_write(archive) as place:
            if archive.suffix == ".tgz":
                with tarfile.open(place, "w:gz") as tar:
                    for path, name in members:
                        tar.add(path, name)
            else:
                with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as zipped:  # PNGs are dense
                    for path, name in members:
                        zipped.write(path, name)
        return archive


def _read_list(path: Path) -> list[str]:
    try:
        return listed_ids(path)
    except (OSError, DataError) as error:
        raise DataError(f"--ids {path}: cannot be read as a list of ids ({error})") from error
