"""Predictions that lie in files: labels, or class maps, of each image.

Letters: C classes · K those in a file · H×W image · h×w maps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deeplab_lit.data.class_maps import MAP_SUFFIXES, ClassMaps, read_map_file
from deeplab_lit.data.image import DataError, MissingFiles, read_mask
from deeplab_lit.data.map_rule import LABEL_FILES, MapRule, MapRuleError, check_shape
from deeplab_lit.data.paths import files_below, masks_of
from deeplab_lit.data.split import INVALID, histogram, listed
from deeplab_lit.text import first_few, plural
from deeplab_lit.types import VOID, Size

HINT = ". Files in the data set's own values need --mask_values labels"


@dataclass(frozen=True)
class PredictedMaps:
    """The predictions for the images of a split.

    Args:
        files: id of an image → its file. An image that is not there has no prediction: it is void.
        num_classes: C.
        table: (256,) uint8, from the values of label files to class indices; 255 is void, INVALID
            no class. None: they hold indices.
        rule: by which class maps become labels.
    """

    files: Mapping[str, Path]
    num_classes: int
    table: np.ndarray | None = None
    rule: MapRule = field(default_factory=MapRule)

    def read(self, id: str, size: Size) -> np.ndarray | ClassMaps:
        """Return labels (H,W) uint8 in {0…C−1, 255}, or class maps of an image.

        Args:
            id: of the image.
            size: its H and W.

        Raises:
            DataError: the file cannot be read, is of another size, or holds what is no class.
        """
        if id not in self.files:
            return np.full(size, VOID, np.uint8)
        path = self.files[id]
        found = read_prediction(path, size, self.num_classes, self.rule)
        if isinstance(found, ClassMaps):
            return found
        labels = self._table()[found]
        wrong = histogram(found)
        wrong[self._table() != INVALID] = 0
        if wrong.any():
            raise DataError(
                f"{path}: the value {listed(np.flatnonzero(wrong))}, which is neither one of the "
                f"{self.num_classes} classes nor void (255)" + HINT * (self.table is None)
            )
        return labels

    def labels(self, found: np.ndarray | ClassMaps, size: Size) -> np.ndarray:
        """Return the labels (H,W) uint8 in {0…C−1, 255} of what `read` has returned."""
        return self.rule.labels(found, size) if isinstance(found, ClassMaps) else found

    def probabilities(
        self, found: np.ndarray | ClassMaps, size: Size, gt_prob: float
    ) -> np.ndarray:
        """Return probabilities (C,H,W) float32 of what `read` has returned.

        Args:
            found: labels or class maps.
            size: H and W.
            gt_prob: for labels, see `soft_labels`; one that is void everywhere may be any class.
        """
        if isinstance(found, ClassMaps):
            return self.rule.probabilities(found, self.num_classes, size)
        if (found == VOID).all():
            return np.full((self.num_classes, *size), 1 / self.num_classes, np.float32)
        return MapRule().probabilities(soft_labels(found, gt_prob), self.num_classes, size)

    def _table(self) -> np.ndarray:
        if self.table is not None:
            return self.table
        table = np.full(256, INVALID, np.uint8)
        table[: self.num_classes] = range(self.num_classes)
        table[VOID] = VOID
        return table


def read_prediction(
    path: Path, size: Size, num_classes: int | None = None, rule: MapRule | None = None
) -> np.ndarray | ClassMaps:
    """Read the labels (H,W) uint8 or the class maps in a file, and check that they fit an image.

    Args:
        path: of a mask in a lossless format, or of a .npy or .npz file (see class_maps.py).
        size: H and W of the image. Labels have it; class maps may be smaller, of the same shape.
        num_classes: C. None: any.
        rule: that class maps have to go with. None: any maps will do.

    Raises:
        DataError: it cannot be read, is of another size, or the rule is not for it.
    """
    is_map = path.suffix.lower() in MAP_SUFFIXES
    found = read_map_file(path, num_classes) if is_map else read_mask(path)
    if isinstance(found, ClassMaps):
        try:
            check_shape(found.maps, size)
            if rule is not None:
                rule.check(found)
        except MapRuleError as error:
            raise MapRuleError(f"{path}: {error}") from error
    elif found.shape != size:
        (h, w), (height, width) = found.shape, size
        raise DataError(
            f"{path}: labels of {w}×{h} (width × height) for an image of {width}×{height}; "
            "labels of an image of its size are expected"
        )
    return found


def read_labels(
    path: Path, size: Size, num_classes: int, rule: MapRule | None = None
) -> np.ndarray:
    """Read the labels of an image, (H,W) uint8, from any file that may hold them.

    Args:
        path: as of `read_prediction`.
        size: H and W of the image, to which class maps are brought.
        num_classes: C.
        rule: for class maps. None: the most probable class.

    Raises:
        DataError: as `read_prediction`; or the file holds labels, and there is a rule.
    """
    found = read_prediction(path, size, num_classes, rule or MapRule())
    if isinstance(found, ClassMaps):
        return (rule or MapRule()).labels(found, size)
    if rule is not None:
        raise MapRuleError(f"{path} holds labels, which need no rule for maps: leave it out")
    return found


def soft_labels(labels: np.ndarray, gt_prob: float) -> ClassMaps:
    """Return probabilities for labels, as pydensecrf.utils.unary_from_labels makes them.

    The class of a pixel has the probability `gt_prob`, and the others in this image share the
    rest; at void pixels all are equal. With one class there is nothing to share.

    Args:
        labels: (H,W) uint8, class indices and 255 for void; not all of it.
        gt_prob: in 0…1.
    """
    classes = np.unique(labels[labels != VOID])
    number = len(classes)
    rest = (1 - gt_prob) / max(number - 1, 1)
    is_class = labels == classes[:, None, None]
    maps = np.where(is_class, gt_prob if number > 1 else 1, rest).astype(np.float32)
    maps[:, labels == VOID] = 1 / number
    return ClassMaps(classes.astype(np.int64), maps, complete=True)


def predictions_in(
    folder: Path,
    ids: Sequence[str],
    images: Sequence[Path],
    title: str,
    *,
    missing_ok: bool,
) -> tuple[dict[str, Path], list[Path]]:
    """Find the prediction of each image in a folder.

    Args:
        folder: with files called as images are.
        ids: names that they may have, of each image.
        images: the images' files.
        title: of the images, in messages.
        missing_ok: some may have none.

    Returns:
        The files by the names of `ids`, those that are there; and the other files in the folder.

    Raises:
        DataError: there is no such folder, an image has two files or none, or none has one.
    """
    if not folder.is_dir():
        raise DataError(f"--masks {folder}: no such folder")
    number = plural(len(ids), "image")
    try:
        files = masks_of(ids, images, folder, LABEL_FILES, missing_ok=missing_ok)
    except MissingFiles as error:
        names = first_few([file.stem for file in error.files])
        hint = "--data.val_split names another split, --data.ids a list of its images. "
        if error.hint:
            hint = f"{error.hint}. "
        if (inner := folder / "masks").is_dir():  # as predict and refine leave them
            hint = f"Is {inner} meant? "
        raise DataError(
            f"--masks {folder}: {len(error.files)} of the {number} of {title} have no file there "
            f"({names}). {hint}An incomplete set is no result; "
            "--allow_missing true counts these images as void"
        ) from error
    found = {id: file for id, file in zip(ids, files, strict=True) if file.is_file()}
    if not found:
        raise DataError(f"--masks {folder}: none of the {number} of {title} has a file there")
    return found, sorted(set(files_below(folder)) - set(found.values()))
