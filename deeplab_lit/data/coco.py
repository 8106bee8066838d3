"""COCO 2014 (Lin et al., 2014) as label maps: its 80 categories and background."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deeplab_lit.data.classes import voc_color
from deeplab_lit.data.coco_stuff import NAMES as STUFF
from deeplab_lit.data.coco_stuff import NEVER
from deeplab_lit.data.dataset import SegmentationData
from deeplab_lit.data.file_split import FileSplit, ImageFiles
from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import (
    Pair,
    files_below,
    listed_ids,
    masks_of,
    matching,
    refuse_missing,
    refuse_one_name,
    require_root,
)

# category id in instances_*.json → name; in ascending order they are the class indices 1…80.
# COCO-Stuff's labels of things are these ids, and what its masks never hold has no instances
CATEGORIES = {id: name for id, name in enumerate(STUFF[:90], 1) if name not in NEVER}
EVERY = "_all"  # at the end of a split's name: with the images that have no annotation
COMMAND = "python -m deeplab_lit.prepare coco2014 --root {}"
REMEDY = (
    "The masks of COCO 2014 hold 0 for background and 1…80 for the 80 categories in the order of "
    "their ids, which go to 90: were ids written, or COCO-Stuff's labels? Write them anew: "
)


class Coco(SegmentationData):
    """COCO 2014: 80 categories and background, of every instance that is no crowd.

    Under `root`: train2014/COCO_train2014_<12 digits>.jpg and val2014/ alike, lists/train2014.txt
    and lists/val2014.txt, and masks/train2014/<name of the image>.png and masks/val2014/, as
    `prepare coco2014` writes them (and lists/image_labels_train2014.txt, for `predict`). Values are
    class indices; crowds are background, nothing is void. Splits train (82,081 images) and val
    (40,137), of images with an annotation, are those of the lists of CLIP-ES and L2G by their
    number; train_all (82,783) and val_all (40,504) are all images, as in RIB's lists: the others
    count as background alone.

    A published mean over "classes with ground truth" leaves out what no mask holds; here such a
    class is out too, unless it is predicted somewhere.

    Args:
        root: the folder with train2014/ and val2014/.
        masks: folder of the masks, below `root` or anywhere: with train2014/ and val2014/, or both
            years together. As in any `mask_dir`, they may be called as the images
            (COCO_train2014_000000000009.png), or by 12 digits (000000000009.png, RIB's), or without
            zeros (9.png, ReCAM's).
    """

    classes = {name: voc_color(i) for i, name in enumerate(("background", *CATEGORIES.values()))}
    palette = dict(enumerate(classes.values()))
    official_ids = True
    init = "coco"
    parts = {
        "train_all": {"train", "train without annotation"},
        "val_all": {"val", "val without annotation"},
    }

    def __init__(self, root: str | None = None, masks: str = "masks", **data: Any) -> None:
        super().__init__(**data)
        self.root = require_root(root)
        self.masks = self.root / Path(masks).expanduser()

    def split(self, name: str) -> FileSplit:
        """Return the images of lists/`name`2014.txt, or for `name`_all of the folder, with masks.

        Raises:
            DataError: no such split, or files are missing.
        """
        ids, images = self._listed(name)
        folder = self.masks / images[0].parent.name
        folder = folder if folder.is_dir() else self.masks
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder of masks. Write it: {COMMAND.format(self.root)}; or "
                "name another with --data.masks"
            )
        masks = masks_of(self.names_of_masks(ids, folder), images, folder)
        pairs = [Pair(*pair) for pair in zip(ids, images, masks, strict=True)]
        return FileSplit(pairs, len(self.classes), remedy=REMEDY + COMMAND.format(self.root))

    def images_of(self, name: str) -> ImageFiles:
        """List the images of a split, whether there are masks or not."""
        return ImageFiles(*self._listed(name))

    def names_of_masks(self, ids: Sequence[str], folder: Path) -> list[str]:
        """Return the name of each image's mask in a folder, by the way in which most are called."""
        there = {file.stem for file in files_below(folder)}
        digits = [id.rpartition("_")[2] for id in ids]
        ways = (list(ids), digits, [number.lstrip("0") for number in digits])
        return max(ways, key=lambda names: len(there.intersection(names)))

    def _listed(self, name: str) -> tuple[list[str], list[Path]]:
        """Return the ids of a split, which are the names of its images, and the images."""
        split = name.removesuffix(EVERY)
        if split not in ("train", "val"):
            raise DataError(f"Coco {name}: splits are train, val, train_all and val_all")
        folder, path = self.root / f"{split}2014", self.root / f"lists/{split}2014.txt"
        if name.endswith(EVERY):
            ids = [image.stem for image in matching(folder, "*.jpg")]
        elif path.is_file():
            ids = listed_ids(path)
        else:
            raise DataError(
                f"{path} does not exist: it lists the images that have an annotation. Write it: "
                f"{COMMAND.format(self.root)}; or take all images: --data.{split}_split {name}_all"
            )
        if not ids:
            raise DataError(f"{folder}: no images there. Run: {COMMAND.format(self.root)}")
        images = [folder / f"{id}.jpg" for id in ids]
        refuse_missing(images)
        refuse_one_name([Pair(id, image, image) for id, image in zip(ids, images, strict=True)])
        return ids, images
