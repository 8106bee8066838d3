"""Files of class maps: how much each class is there at each pixel, by a CAM or a network.

| file | holds |
|---|---|
| .npy dictionary of IRN | keys (K,) and high_res (K,H,W), or cam (K,⌈H/4⌉,⌈W/4⌉) |
| .npy dictionary of CLIP-ES | keys (K,) and attn_highres (K,H,W) float16 |
| .npy of an array (C,h,w) of floats | probabilities of all classes |
| .npz of `write_probabilities` | the same of the classes that matter |

The first two have the classes that the image is known to hold, counted from 0 without background,
and their values are scores in 0…1, each map divided by its highest; `MapRule` says where background
is. Their keys are those of the code that writes and reads them (jiwoon-ahn/irn, from which RIB,
AdvCAM, ReCAM and LPCAM begin; linyq2117/CLIP-ES).

Letters: C classes · K those in a file · H×W image · h×w maps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data.image import DataError
from deeplab_lit.data.npy_files import Content, read_npy, read_npz
from deeplab_lit.types import VOID

MAP_SUFFIXES = (".npy", ".npz")  # of files that hold label maps or class maps
MAPS = ("high_res", "attn_highres", "cam")  # of the keys of a dictionary, the first that is there
LEAST = 1e-3  # a class of whose probabilities none is as high is left out of a file
SUM_TOLERANCE = 2e-2  # of the probabilities of a pixel
EXCESS = 1e-3  # by which rounding may bring a value out of 0…1
NO_MAPS = (
    "expected a dictionary of keys and high_res, attn_highres or cam, as IRN and CLIP-ES write it; "
    "a floating-point array (C,h,w) of probabilities; or an .npz file of predict --probabilities"
)


@dataclass(frozen=True)
class ClassMaps:
    """Maps of some classes of an image.

    Attributes:
        classes: (K,) int64, indices of the classes; 0 is background where there is one.
        maps: (K,h,w) float32 in 0…1.
        complete: they are probabilities, whose sum at each pixel is 1: classes that are not there
            have none. Else they are scores of the classes in the foreground, and say nothing of
            background.
    """

    classes: np.ndarray
    maps: np.ndarray
    complete: bool


def read_map_file(path: Path, num_classes: int | None = None) -> np.ndarray | ClassMaps:
    """Read a .npy or .npz file, of class maps or of labels; nothing in it is run.

    Args:
        path: of the file.
        num_classes: C. None: any, but an array (C,h,w) tells its own.

    Returns:
        Maps, or (H,W) uint8: the labels of a .npy file that holds whole numbers in 0…255.

    Raises:
        DataError: it cannot be read, holds something else, or values that cannot be meant.
    """
    if path.suffix.lower() == ".npz":
        return _compact(path, read_npz(path), num_classes)
    content = read_npy(path)
    if isinstance(content, dict):
        return _scores(path, content, num_classes)
    if content.ndim == 2 and content.dtype.kind in "iub":
        if content.size and not 0 <= content.min() <= content.max() <= VOID:
            found = f"{content.min()}…{content.max()}"
            raise DataError(f"{path}: label values {found}, expected 0…{VOID}")
        return content.astype(np.uint8)
    if content.ndim == 3 and content.dtype.kind == "f" and len(content) < VOID:
        if num_classes is not None and len(content) != num_classes:
            if content.shape[-1] == num_classes:
                raise DataError(f"{path}: {_in_other_order(content)}")
            raise DataError(
                f"{path}: an array of {len(content)} maps for {num_classes} classes; maps of fewer "
                "classes need a dictionary that names them"
            )
        return _probabilities(path, np.arange(len(content)), content)
    if content.ndim == 3 and content.dtype.kind == "f" and content.shape[-1] < VOID:
        raise DataError(f"{path}: {_in_other_order(content)}")
    raise DataError(f"{path}: an array {content.shape} of {content.dtype}; {NO_MAPS}")


def read_class_maps(path: Path, num_classes: int | None = None) -> ClassMaps:
    """Read the class maps of an image; nothing in the file is run.

    Args:
        path: of a .npy or .npz file.
        num_classes: C. None: any.

    Raises:
        DataError: as `read_map_file`; or the file holds labels.
    """
    found = read_map_file(path, num_classes)
    if isinstance(found, ClassMaps):
        return found
    raise DataError(f"{path}: labels {found.shape}, but no class maps; {NO_MAPS}")


def write_probabilities(path: Path, probabilities: np.ndarray) -> None:
    """Write the probabilities of an image as a compact file, atomically; folders are made.

    What is lost: classes that have a probability of 0.001 at no pixel count as 0, and the others
    are rounded to float16, by at most 1 in 2048. The most probable class of each pixel stays.

    Measured on five photographs of VOC (500×332 to 500×375 pixels, 21 classes) with a network that
    was hardly trained, so that no class could be left out: 4.7 to 5.4 MB, a third of float32.

    Args:
        path: of the .npz file.
        probabilities: (C,H,W) float, sum over classes 1.
    """
    best = probabilities.argmax(0)
    kept = np.flatnonzero(probabilities.max((1, 2), initial=0) >= LEAST)
    rounded = probabilities[kept].astype(np.float16)
    place = np.searchsorted(kept, best)  # of the most probable class among those that are kept
    tied = np.nonzero(rounded.argmax(0) != place)
    highest = rounded[(place[tied], *tied)]
    rounded[(place[tied], *tied)] = np.nextafter(highest, np.float16(2))
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary,
            num_classes=np.array(len(probabilities)),
            classes=kept.astype(np.uint8),
            probabilities=rounded,
        )


def _compact(path: Path, content: dict[str, Content], num_classes: int | None) -> ClassMaps:
    """Return what `write_probabilities` has written.

    Raises:
        DataError: it is something else, or of another number of classes.
    """
    names = ("num_classes", "classes", "probabilities")
    number, classes, maps = map(content.get, names)
    if not all(isinstance(part, np.ndarray) for part in (number, classes, maps)):
        raise DataError(f"{path}: it holds {', '.join(content) or 'nothing'}; {NO_MAPS}")
    assert isinstance(number, np.ndarray)
    assert isinstance(classes, np.ndarray)
    assert isinstance(maps, np.ndarray)
    written_with = int(number) if number.size == 1 and number.dtype.kind in "iu" else -1
    if written_with >= VOID:
        raise DataError(f"{path}: {written_with} classes, expected less than {VOID}")
    if num_classes is not None and written_with != num_classes:
        raise DataError(f"{path}: probabilities of {written_with} classes, expected {num_classes}")
    _check_classes(path, classes, maps, written_with)
    left_out = LEAST * (written_with - len(classes))
    return _probabilities(path, classes.astype(np.int64), maps, SUM_TOLERANCE + left_out)


def _scores(path: Path, content: dict, num_classes: int | None) -> ClassMaps:
    """Return the maps of a dictionary.

    Raises:
        DataError: it holds something else, or values that cannot be meant.
    """
    name = next((name for name in MAPS if name in content), None)
    keys, maps = content.get("keys"), content.get(name)
    if not isinstance(keys, np.ndarray) or not isinstance(maps, np.ndarray):
        raise DataError(
            f"{path}: a dictionary of {', '.join(map(str, content))[:200] or 'nothing'}; {NO_MAPS}"
        )
    foreground = VOID - 1 if num_classes is None else num_classes - 1
    if keys.size == 0:  # an image that is known to hold no class
        size = maps.shape[1:] if maps.ndim == 3 else (1, 1)
        return ClassMaps(np.zeros(0, np.int64), np.zeros((0, *size), np.float32), complete=False)
    _check_classes(path, keys, maps, foreground)
    _check_values(path, maps)
    return ClassMaps(keys.astype(np.int64) + 1, maps.astype(np.float32), complete=False)


def _check_classes(path: Path, keys: np.ndarray, maps: np.ndarray, most: int) -> None:
    """Refuse maps that do not belong to the classes that are named.

    Raises:
        DataError: other numbers of both, or numbers that no class has.
    """
    if keys.ndim != 1 or keys.dtype.kind not in "iu" or maps.ndim != 3 or len(keys) != len(maps):
        raise DataError(
            f"{path}: {maps.shape} of maps for classes {keys.shape} of {keys.dtype}; expected "
            "(K,h,w) for K whole numbers"
        )
    if len(set(keys.tolist())) < len(keys) or not 0 <= keys.min() <= keys.max() < most:
        raise DataError(
            f"{path}: the classes {', '.join(map(str, keys.tolist()[:20]))}; expected 0…{most - 1},"
            " each once (in dictionaries background has no number, and the first class after it "
            "is 0)"
        )
    if 0 in maps.shape:
        raise DataError(f"{path}: maps of {maps.shape}, which is empty")


def _check_values(path: Path, maps: np.ndarray) -> None:
    """Refuse maps whose values are not in 0…1.

    Raises:
        DataError: they are not, or NaN is among them.
    """
    if maps.dtype.kind != "f" or not np.isfinite(maps).all():
        raise DataError(f"{path}: maps of {maps.dtype}, with NaN or infinity: expected 0…1")
    if maps.min() < -EXCESS or maps.max() > 1 + EXCESS:
        raise DataError(
            f"{path}: map values {maps.min():.4g}…{maps.max():.4g}, expected 0…1. Scores are "
            "divided by the highest of each map, probabilities are those after the softmax"
        )


def _probabilities(
    path: Path, classes: np.ndarray, maps: np.ndarray, tolerance: float = SUM_TOLERANCE
) -> ClassMaps:
    """Return probabilities, divided by their sum, which may be off by a tolerance.

    Raises:
        DataError: they are none.
    """
    if 0 in maps.shape:
        raise DataError(f"{path}: maps of {maps.shape}, which is empty")
    _check_values(path, maps)
    values = maps.astype(np.float32)
    total = values.sum(0)
    if np.abs(total - 1).max() > tolerance:
        if np.abs(values.sum(-1) - 1).max() <= tolerance:
            raise DataError(f"{path}: {_in_other_order(maps)}")
        raise DataError(
            f"{path}: the sum of a pixel's probabilities is {total.min():.4g}…{total.max():.4g}, "
            "expected 1: divide by it; scores of some classes need a dictionary that names them"
        )
    return ClassMaps(classes, values / total, complete=True)


def _in_other_order(maps: np.ndarray) -> str:
    return (
        f"an array {maps.shape} in the order (H,W,C), expected (C,H,W): save "
        "array.transpose(2, 0, 1)"
    )
